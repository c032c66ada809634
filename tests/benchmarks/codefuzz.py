"""Random programs, for as long as you like: traps, SUM and changing code, with and without the native part.

python -m tests.benchmarks.codefuzz [MINUTES [FIRST_SEED]]
"""

import os
import random
import sys
import time

from emu.cpu.native import SWITCH
from tests.emu.cpu import changing, programs


def main(minutes: float, seed: int) -> None:
    """Print how many ran; a difference raises, naming its seed."""
    end = time.monotonic() + 60 * minutes
    first = seed
    while time.monotonic() < end:
        try:
            program = programs.program(random.Random(seed))
            assert programs.digest(program, native=True) == programs.digest(program, native=False)
            os.environ[SWITCH] = ""
            changing.compare(random.Random(seed), synchronize=False)
            os.environ[SWITCH] = "off"
            changing.compare(random.Random(seed), synchronize=True)
        except AssertionError as error:
            raise SystemExit(f"seed {seed}: {error}") from error
        seed += 1
    print(f"{seed - first} seeds from {first}: no difference")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
