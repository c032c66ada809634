"""What would delay every start is not imported before it is needed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The package of Unicorn, 10 ms; numpy, 100 ms; and what the default machine does not use.
LATER = {"unicorn", "numpy", "sounddevice", "bz2", "lzma", "tempfile", "devices.audio.wav", "emu.trace", "emu.shell",
         "devices.virtio.fs", "emu.transfer", "devices.net", "devices.virtio.net", "emu.cards"}  # fmt: skip


def test_a_machine_at_its_first_instruction() -> None:
    code = (
        "import mmap, sys, emu.cli.session; from emu.cpu.engine import Engine; Engine(mmap.mmap(-1, 4096), 0)\n"
        "from devices.audio import parse; parse('null'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert LATER & set(done.stdout.split()) == set()


def test_nothing_collects_garbage_while_the_command_line_is_imported() -> None:
    code = (
        "import emu, gc; count = lambda: sum(one['collections'] for one in gc.get_stats())\n"
        "before = count(); import emu.__main__; print(gc.isenabled(), count() - before <= 1)"  # of its own compilation
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
