"""What it costs to watch a machine that plays, on the host's clock: all kinds of traces, and the meter.

python -m tests.benchmarks.watching [SECONDS [ROUNDS]]
"""

import os
import statistics
import sys
import tempfile
import termios
import threading
from pathlib import Path

from devices.audio.wavfile import WavFile
from emu import guest
from emu.analysis.periods import read_log
from emu.trace import CATEGORIES
from tests.benchmarks.process import PROMPT, Guest, pyemu
from tests.benchmarks.sound import S16_STEREO, noise

MODES = {
    "off": [],
    "--trace snd,virtio,sbi,plic --trace-file": ["--trace", "snd,virtio,sbi,plic", "--trace-file", "trace.json"],
    "--trace-file": ["--trace-file", "trace.json"],
    "--trace all --trace-file": ["--trace", "all", "--trace-file", "trace.json"],
    "--trace snd,virtio,sbi,plic": ["--trace", "snd,virtio,sbi,plic"],
    "--meter": ["--meter"],
    "--meter --trace-file": ["--meter", "--trace-file", "trace.json"],
}


class Terminal:
    """A terminal that is being watched; ``shown`` counts bytes."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (24, 80))
        self.shown = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while data := os.read(self._master, 65536):
            self.shown += len(data)


def processor_ns(pid: int) -> int:
    """Return the CPU time of all of a process's current threads."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def play(
    files: tuple[Path, Path], folder: Path, seconds: float, frames: bytes, options: list[str]
) -> tuple[float, str]:
    """Play a song; return the share of a core (%), and a description of the run."""
    sound, trace, log = folder / "out.wav", folder / "trace.json", folder / "log.jsonl"
    trace.unlink(missing_ok=True)
    options = [str(trace) if option == trace.name else option for option in options]
    command = pyemu(
        *files, "-a", "quiet", "--disk", f"{folder / 'song.wav'},readonly", "--audio", f"wav:{sound},log={log}"
    )
    terminal = Terminal()
    with Guest([*command, *options], terminal.slave) as machine:
        machine.shell()
        machine.run("echo 7 > /proc/asound/card0/pcm0p/xrun_debug; sleep 1")
        shown, before = terminal.shown, processor_ns(machine.pid)
        took = machine.run("aplay -q -D hw:0,0 --period-size=1024 --buffer-size=4096 /dev/vda")
        share = (processor_ns(machine.pid) - before) / took / 1e7
        shown = terminal.shown - shown
        machine.type("echo complaints:$(dmesg | grep -ciE 'xrun|hw_ptr|lost interr')")
        complaints = machine.until(rb"\ncomplaints:(\d+)")[1].decode()
        machine.until(PROMPT.encode())
        machine.type("poweroff")
        machine.wait()
    exact = "bit-exact" if sound.read_bytes().find(frames) >= 0 else "NOT EXACT"
    written = f", file {trace.stat().st_size / 1e3:.0f} kB" if trace.exists() else ""
    late = max(period.lateness_ns for period in read_log(log)) / 1e6
    return share, (
        f"{exact}, {complaints} complaints, {took:.2f} s, latest period {late:.2f} ms, "
        f"terminal {shown / took / 1e3:.1f} kB/s{written}"
    )


def main(seconds: float, rounds: int, files: tuple[Path, Path]) -> None:
    """Print the lines."""
    frames = noise(S16_STEREO, seconds)
    each = [[name, ["--trace", name, "--trace-file", "trace.json"]] for name in CATEGORIES]
    modes = {**MODES, **{f"--trace {name} --trace-file": options for name, options in each}}
    shares: dict[str, list[float]] = {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = WavFile(folder / "song.wav", S16_STEREO)
        song.append(frames)
        song.close()
        with song.path.open("ab") as file:
            file.truncate(-(-file.tell() // 512) * 512)
        for number in range(rounds):
            for mode, options in modes.items():
                share, words = play(files, folder, seconds, frames, options)
                shares[mode].append(share)
                print(f"{number + 1}: {mode:42} {share:6.2f} % of a core, {words}", flush=True)
    off = statistics.median(shares["off"])
    for mode, values in shares.items():
        median = statistics.median(values)
        print(f"{mode:42} {median:6.2f} % of a core, {median - off:+.2f}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        float(arguments[0]) if arguments else 20.0,
        int(arguments[1]) if len(arguments) > 1 else 1,
        guest.files(lambda line: print(line, file=sys.stderr)),
    )
