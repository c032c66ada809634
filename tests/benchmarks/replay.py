"""Interactive sessions, each typed into a pseudo-terminal at random moments: is the replay the same, to the bit?

python -m tests.benchmarks.replay [COUNT] [FIRST SEED]
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import NamedTuple

from emu import guest
from tests.emu.terminal.test_terminal import Session

__all__ = ["Run", "interactive", "replay"]

COMMANDS = (
    "ls -l /; date",
    "aplay -q -D hw:0,0 /root/tone.wav",
    "arecord -q -D hw:0,0 -f S16_LE -c 2 -r 48000 -d 1 /tmp/in.wav & aplay -q -D hw:0,0 /root/tone.wav; wait",
    "md5sum /tmp/in.wav; cat /proc/uptime /proc/interrupts",
    "dd if=/dev/urandom of=/dev/vda bs=4k count=50 2>/dev/null; sync",
    "i=0; while [ $i -lt 20 ]; do /bin/true; i=$((i+1)); done",
    "amixer contents; stty size </dev/ttyS0",
    "hackbench -g 1 -l 20",
)
MONITOR = (
    "jack mic unplug",
    "jack mic plug",
    "jack line unplug",
    "volume 30%",
    "mute",
    "unmute",
    "info sound",
    "pause",
)
DISK_SIZE = 1 << 20
C_A = b"\x01"


class Run(NamedTuple):
    """What a run left: digests of what it printed, played, and wrote to its disk."""

    console: str
    sound: str
    disk: str


def interactive(folder: Path, seed: int) -> Run:
    """Type a session that depends on ``seed``, at moments that nobody can repeat, and record it."""
    chance = random.Random(seed)
    image, rootfs = guest.files()
    disk, console = folder / "disk.img", folder / "console"
    disk.write_bytes(bytes(DISK_SIZE))
    with console.open("wb") as stdout:
        session = Session(
            image, str(rootfs), "--clock", "warp", "--disk", str(disk), "--audio", f"wav:{folder / 'sound.wav'}",
            "--record", str(folder / "run"), "--seed", str(seed), stdout=stdout.fileno(),
        )  # fmt: skip
        try:
            if chance.random() < 0.8:
                session.wait_until(lambda: b"# " in console.read_bytes())
            _type_all(session, chance)
            session.status()
        finally:
            session.close()
    return _run(folder, "")


def _type_all(session: Session, chance: random.Random) -> None:
    session.wait_for(b"C-a x quits")
    for _ in range(chance.randrange(3, 8)):
        _type(session, chance, chance.choice(COMMANDS).encode() + b"\r")
        time.sleep(chance.choice((0, 0.1, 0.5, 1)) * chance.random())
        if chance.random() < 0.4:
            command = chance.choice(MONITOR).encode()
            _type(session, chance, C_A + b"c" + command + b"\r")
            if command == b"pause":
                _type(session, chance, b"resume\r")
            _type(session, chance, C_A + b"c")
        if chance.random() < 0.4:
            termios.tcsetwinsize(session.slave, (chance.randrange(20, 60), chance.randrange(60, 200)))
        if chance.random() < 0.3:
            _type(session, chance, b"\x03")
    end = chance.choice(("poweroff", "quit", "signal", "reboot"))
    if end == "quit":
        _type(session, chance, C_A + b"x")
    elif end == "signal":
        os.kill(session.pid, signal.SIGTERM)
    elif end == "reboot":
        _type(session, chance, b"reboot -f\r")
        time.sleep(1 + chance.random())
        _type(session, chance, b"echo again\r")
        time.sleep(chance.random())
        _type(session, chance, C_A + b"x")
    else:
        time.sleep(chance.random())
        _type(session, chance, b"\x03\rpoweroff -f\r")


def _type(session: Session, chance: random.Random, keys: bytes) -> None:
    """Type ``keys`` as people do, or faster."""
    while keys:
        count = chance.choice((1, 1, 1, 2, 5, 50))
        session.type(keys[:count])
        keys = keys[count:]
        time.sleep(chance.choice((0, 0.001, 0.01, 0.05)) * chance.random())


def replay(folder: Path) -> tuple[Run, str]:
    """Replay what ``interactive`` has left in ``folder``; return the run, and what was said of it."""
    image, rootfs = guest.files()
    disk = folder / "disk2.img"
    disk.write_bytes(bytes(DISK_SIZE))
    with (folder / "console2").open("wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "emu", "boot", str(image), str(rootfs), "--disk", str(disk),
             "--audio", f"wav:{folder / 'sound2.wav'}", "--replay", str(folder / "run")],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    return _run(folder, "2"), done.stderr


def _run(folder: Path, suffix: str) -> Run:
    files = [folder / f"console{suffix}", folder / f"sound{suffix}.wav", folder / f"disk{suffix}.img"]
    return Run(*(hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.exists() else "none" for file in files))


def main(count: int, first: int) -> None:
    """Print a line for each seed."""
    same = 0
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as name:
            recorded = interactive(Path(name), seed)
            again, said = replay(Path(name))
            inputs = (Path(name) / "run").read_text().count("\n")
        is_same = recorded == again and "to the bit" in said
        same += is_same
        print(seed, inputs, "lines", recorded, "same" if is_same else f"DIFFERENT {again} {said}", flush=True)
    print(f"{same} of {count} are the same")


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["50", "1"][len(sys.argv) - 1 :])))
