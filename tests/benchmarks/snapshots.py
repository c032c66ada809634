"""Snapshots at random instants of a busy session: is what goes on from them the run that was not saved, to the bit?

python -m tests.benchmarks.snapshots [COUNT [SEED]]    COUNT instants (200), each gone on from in a new process
python -m tests.benchmarks.snapshots figures           what they cost: times, sizes, memory
"""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from devices.audio import NullSink
from devices.audio.base import Playback
from devices.audio.pcm import PcmParams
from emu import Machine, Record, Trace, guest
from tests.benchmarks.snapshot_figures import figures, hold

__all__ = ["Rest", "go_on", "straight"]

#: Before it boots, it is pasted: what the guest is to do, playing and recording in one format after the other.
PASTED = r"""
(while :; do /bin/true; done) & busy=$!
cat > /tmp/text << 'END'
%s
END
md5sum /tmp/text
for format in S16_LE S32_LE U8; do
    arecord -q -D hw:0,0 -f $format -c 2 -r 48000 -d 1 /tmp/in.wav &
    aplay -q -D hw:0,0 /root/tone.wav
    dd if=/dev/urandom of=/dev/vda bs=4k count=64 seek=7 2>/dev/null; sync
    dd if=/dev/vda bs=64k 2>/dev/null | md5sum
    wait %%2 2>/dev/null; md5sum /tmp/in.wav
    amixer -q sset Master 50%%; aplay -q -D hw:0,0 -d 1 -f S16_LE -r 8000 /tmp/text
done
kill $busy; date; cat /proc/interrupts; poweroff -f
"""
DISK_SIZE = 4 << 20
#: About as long as the session takes (guest time, ns).
SESSION_NS = 4_300_000_000


class Rest(NamedTuple):
    """What a run was from an instant on: when it was over, and digests of what it printed, played, wrote and did."""

    guest_ns: int
    console: str
    sound: str
    disk: str
    trace: str


class Sink(NullSink):
    """Keeps what is played; what is recorded is noise, always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        return _Port(self)


class _Port(Playback):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> None:
        self._sink.data += data


class Watched:
    """What a machine does from now on."""

    def __init__(self, folder: Path, kernel: Path | str, **options: Any) -> None:
        self.records: list[Record] = []
        self.sink = Sink()
        self.machine = Machine(kernel, audio=self.sink, clock="warp", trace=Trace(self.records.append), **options)
        self.folder = folder

    def at(self) -> tuple[int, int, int, int]:
        """The guest time (ns), and how much has been printed, played and done so far."""
        self.machine.console.flush()
        return self.machine.clock.now(), self.machine.console.printed, len(self.sink.data), len(self.records)

    def rest(self, now: int, printed: int, played: int, done: int) -> Rest:
        """What it was from where it was ``at``. A trace shows what had begun by then as if it began then."""
        disk = self.machine.disks[0]
        trace = [
            record._replace(span=record.span and (max(record.span[0], now), record.span[1]))
            for record in self.records[done:]
        ]
        contents = (
            self.machine.console.since(printed), bytes(self.sink.data[played:]), disk.read(0, disk.size),
            "\n".join(map(repr, trace)).encode(),
        )  # fmt: skip
        return Rest(self.machine.clock.now(), *(hashlib.sha256(content).hexdigest()[:16] for content in contents))


def straight(folder: Path, instants: list[int], **options: Any) -> list[Rest]:
    """Run the session, save it at each of the ``instants`` (ns), upwards, and return what came after each."""
    image = folder / "disk.img"
    image.write_bytes(bytes(DISK_SIZE))
    kernel, initrd = guest.files(lambda line: print(line, file=sys.stderr))
    watched = Watched(folder, kernel, initrd=initrd, disk=f"{image},snapshot", **options)
    places = []
    with watched.machine as machine:
        text = "\n".join(f"line {number} of the pasted text" for number in range(200))
        machine.console.sendline(PASTED % text)
        for number, instant in enumerate(instants):
            machine.run_for((instant - machine.clock.now()) / 1e9)
            machine.save(folder / f"{number}.pyemu")
            places.append(watched.at())
        machine.run()
        return [watched.rest(*place) for place in places]


def go_on(folder: Path, instants: list[int], number: int) -> Rest:
    """Go on from one of the snapshots, stopping where the straight run did."""
    watched = Watched(folder, folder / f"{number}.pyemu")
    with watched.machine as machine:
        place = watched.at()
        for instant in instants[number + 1 :]:
            machine.run_for((instant - machine.clock.now()) / 1e9)
        machine.run()
        return watched.rest(*place)


def main(count: int, seed: int) -> int:
    """Print what differs."""
    chance = random.Random(seed)
    instants = sorted(chance.randrange(SESSION_NS) for _ in range(count))
    different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = straight(folder, instants)
        (folder / "instants").write_text(json.dumps(instants))
        begun = time.monotonic()
        for number, rest in enumerate(expected):
            command = [sys.executable, "-m", "tests.benchmarks.snapshots", "on", name, str(number)]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.stdout.strip() != repr(rest):
                different += 1
                print(
                    f"from {instants[number] / 1e9:.6f} s: {run.stdout or run.stderr[-500:]}instead of {rest}",
                    flush=True,
                )
        seconds = (time.monotonic() - begun) / max(count, 1)
    print(f"{count} instants, {different} of them different; {seconds:.1f} s each")
    return bool(different)


if __name__ == "__main__":
    if sys.argv[1:2] == ["figures"]:
        figures()
    elif sys.argv[1:2] == ["hold"]:
        hold(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["on"]:
        place = Path(sys.argv[2])
        print(go_on(place, json.loads((place / "instants").read_text()), int(sys.argv[3])))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, int(sys.argv[2]) if len(sys.argv) > 2 else 1))
