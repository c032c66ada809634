"""``python -m emu`` is ``pyemu``."""

from emu.cli import main

main()
