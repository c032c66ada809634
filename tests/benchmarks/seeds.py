"""The same session with one seed after another: does all work in each timing, and are they all different?

python -m tests.benchmarks.seeds [COUNT] [FIRST]      seeds FIRST (default 0), FIRST + 1, ...
"""

import sys
import tempfile
from pathlib import Path

from tests.benchmarks.repeat import session


def main(count: int, first: int) -> None:
    """Print what each run was; exit with a message if two took the same time, or one sounds different."""
    runs = []
    with tempfile.TemporaryDirectory() as name:
        for seed in range(first, first + count):
            runs.append(session(Path(name), seed=seed))
            print(seed, runs[-1], flush=True)
    times, sounds = {run.guest_ns for run in runs}, {run.sound for run in runs}
    print(f"{count} seeds: {len(times)} guest times, {len(sounds)} sounds")
    if len(times) < count or len(sounds) > 1:
        sys.exit("each seed is to have a time of its own, and all of them the same sound")


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    main(*arguments, *(20, 0)[len(arguments) :])
