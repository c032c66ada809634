"""Debian's gdb in Linux's sound driver, while a song plays: nothing of that is heard, and warp time is the same."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devices.audio import WavSink
from emu import Machine
from tests.guest.test_sound import S16_STEREO, ramp, song_disk

GDB = "gdb-multiarch"
COMMAND = "aplay -q -D hw:0,0 --period-size=1200 --buffer-size=4800 /dev/vda"
#: The driver's queue, from what it is told when a period is over.
QUEUE = ["set $queue = (struct vring_virtqueue *)$a0"]


@contextmanager
def gdb(guest_files: tuple[Path, Path], port: int, *commands: str) -> Iterator[list[str]]:
    """Run ``commands`` in gdb beside the machine; the list has its lines afterwards."""
    image = guest_files[0]
    setup = ["set confirm off", "set pagination off", "set width 0", f"target remote :{port}"]
    arguments = [word for command in (*setup, *commands) for word in ("-ex", command)]
    lines: list[str] = []
    with subprocess.Popen(
        [GDB, "-nx", "-batch", image.with_name("vmlinux"), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        yield lines
        lines += process.communicate()[0].splitlines()


class Session:
    """A run of the guest that plays a song, in gdb or not."""

    def __init__(self, files: tuple[Path, Path], folder: Path, clock: str, *commands: str) -> None:
        frames = ramp(48000)
        sink = WavSink(folder / f"{clock}{len(commands)}.wav")
        song = song_disk(folder, S16_STEREO, frames)
        with Machine(*files, clock=clock, audio=sink, disks=[song], append="console=ttyS0 norandmaps") as machine:
            if commands:
                with gdb(files, machine.gdb(wait=True), *commands, "detach") as self.lines:
                    self.result = machine.console.run(COMMAND)
            else:
                self.result = machine.console.run(COMMAND)
            played = sink.frames.tobytes()
            self.exact = played[: len(frames)] == frames and not any(played[len(frames) :])
            self.underruns = machine.sound.stats[0].underruns
            self.everything = bytes(machine.console.text), machine.clock.now(), machine.counters.traps

    def line(self, start: str) -> list[str]:
        return [line for line in self.lines if line.startswith(start)]


STEPS = "python for _ in range(300): gdb.execute('stepi', to_string=True)"


def test_breakpoints_steps_and_watchpoints_are_not_heard(guest_files, tmp_path):
    commands = [
        "break virtsnd_pcm_trigger", "continue", "print substream->pcm->name", "print command", "backtrace 2",
        "finish", STEPS, "delete",
        "break virtsnd_pcm_tx_notify_cb", "continue", *QUEUE, "print $queue->split.vring.num", "delete",
        "watch $queue->split.vring.used->idx", "continue", "backtrace 1", "delete",
        "watch $queue->split.vring.avail->idx", "continue", "backtrace 1", "delete",
        f"source {guest_files[0].with_name('vmlinux-gdb.py')}", "lx-ps",
    ]  # fmt: skip
    debugged, plain = (Session(guest_files, tmp_path, "warp", *script) for script in (commands, []))
    assert plain.exact
    assert debugged.exact
    assert debugged.everything == plain.everything
    assert debugged.line('$1 = "VirtIO PCM 0"')
    assert debugged.line("#0  virtsnd_pcm_trigger (substream=")
    frames = debugged.line("#0")
    assert len(frames) == 3
    assert all(name in frame for name, frame in zip(("trigger", "idle", "virtqueue_add"), frames, strict=True)), frames
    assert any(line.endswith("aplay") for line in debugged.lines)


def test_while_gdb_has_it_stand_sound_stands(guest_files, tmp_path):
    """By the host's clock: no underrun, and every sample."""
    session = Session(
        guest_files, tmp_path, "host", "break virtsnd_pcm_pointer", "continue", "shell sleep 0.5", STEPS, "continue",
        "continue", "shell sleep 0.5", "next", "next", "delete",
    )  # fmt: skip
    assert session.result == (0, "")
    assert (session.underruns, session.exact) == (0, True)


def test_who_wrote_this_word_is_answered_backwards(guest_files, tmp_path):
    commands = [
        "break virtsnd_pcm_tx_notify_cb", "continue", "continue", *QUEUE, "delete",
        "watch *(unsigned short *)&$queue->split.vring.avail->idx", "reverse-continue", "backtrace 2", "delete",
        "reverse-stepi", "reverse-finish", "backtrace 1",
    ]  # fmt: skip
    debugged, plain = (Session(guest_files, tmp_path, "warp", *script) for script in (commands, []))
    assert debugged.exact
    assert debugged.everything == plain.everything
    assert any("in virtqueue_add_split" in line for line in debugged.lines)
    old, new = (int(debugged.line(f"{which} value = ")[0].split()[-1]) for which in ("Old", "New"))
    assert new == old - 1
    assert not debugged.line("No more reverse-execution")


@pytest.fixture(autouse=True)
def _needs_gdb():
    try:
        subprocess.run([GDB, "--version"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"{GDB} is not installed")
