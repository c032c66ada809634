"""Boot, greet and power off, over and over on the warp clock: every boot must be clean.

python -m tests.benchmarks.boots [COUNT]
"""

import sys
import time
from pathlib import Path

from devices.power import PowerAction
from emu import guest
from emu.machine import Machine


def boot(image: Path, rootfs: Path) -> None:
    """Boot once; raises if anything is not as it should be."""
    with Machine(image, rootfs, clock="warp") as machine:
        machine.console.expect("\n# ")
        machine.console.sendline("echo he''llo && poweroff")
        machine.console.expect("hello\r\n")
        request = machine.run()
        text = bytes(machine.console.text)
    if request.action is not PowerAction.OFF or any(word in text for word in (b"Oops", b"WARNING", b"BUG", b"panic")):
        raise RuntimeError(f"{request}: {text[-2000:].decode(errors='replace')}")


def main(count: int, image: Path, rootfs: Path) -> None:
    """Print how many boots were clean."""
    start = time.perf_counter()
    for number in range(count):
        boot(image, rootfs)
        print(f"\r{number + 1} of {count} boots clean", end="", flush=True)
    print(f", {(time.perf_counter() - start) / count:.2f} s each")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, *guest.files(lambda line: print(line, file=sys.stderr)))
