"""``pyemu``, and ``python -m emu``."""

import gc

# Before anything is imported: 9 ms of each start, spent on looking for cycles. While a guest runs none are looked for
# anyway, and what else the command line does is soon over.
gc.disable()

from emu.cli import main  # noqa: E402

__all__ = ["main"]

if __name__ == "__main__":
    main()
