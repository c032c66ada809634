"""Where a test meets its machine: for each case, the same machine at the same instant, and a sound file of its own."""

import hashlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devices.audio import WavSink
from devices.audio.pcm import PcmParams
from emu.fleet.outcome import TAIL_BYTES, Failure, Report, tail
from emu.fleet.target import Test
from emu.machine import Machine
from emu.snapshot.snapshot import Snapshot

__all__ = ["Bench"]

#: A longer sound is not kept when its case fails.
_LONGEST_SOUND = 4 << 20
#: How much a process may keep of all cases so far: bytes, open files, threads.
_MOST_LEFT = (256 << 20, 64, 16)


class Bench:
    """Runs one case after another. Use it as a context manager.

    ``options`` are Machine's; ``folder`` is for files that last as long as a case, and ``show`` gets what the guest
    prints, at once, for those who find the process dead.
    """

    def __init__(self, test: Test, options: Mapping[str, Any], folder: Path, show: Callable[[bytes], None]) -> None:
        self._test, self._options, self._folder, self._show = test, options, folder, show
        self._machine: Machine | None = None
        self._ready: Snapshot | None = None  # what the machine goes back to
        self._kept: tuple[int, ...] | None = None
        self._cases = 0

    def run(self, case: dict[str, Any], seed: int) -> Report:
        """Run the test once; whatever happens is in the report."""
        began = time.monotonic_ns()
        witness = _Witness(self._show)
        value, failure, sound = None, None, b""
        try:
            machine = self._switch_on(seed, witness)
            value = pickle.dumps(self._test(machine, **case))
        except BaseException as error:  # noqa: BLE001 - SystemExit, too: the process is ours
            failure = Failure.of(error)
        sound = witness.end(self._machine, keep_sound=failure is not None)
        if failure is not None:
            self._discard()  # whatever the test was doing with it
        return Report(
            value, failure, witness.console, "", witness.guest_ns, time.monotonic_ns() - began,
            witness.printed.hexdigest(), witness.played.hexdigest(), sound, self._is_worn(),
        )  # fmt: skip

    def _switch_on(self, seed: int, witness: "_Witness") -> Machine:
        """Return the machine as it is before each case: the last one's, taken back, if it has the same seed."""
        if self._machine is not None and (self._ready is None or self._machine.chance.seed != seed):
            self._discard()
        own_sound = "audio" not in self._options
        self._cases += 1
        path = self._folder / f"played-{self._cases % 2}.wav"  # the case before this one's is still open
        if self._machine is None:
            options: dict[str, Any] = {"audio": WavSink(path)} if own_sound else {}
            self._machine = machine = Machine(**self._options, **options, seed=seed)
            if not {"disk", "disks", "share", "shares"} & self._options.keys():
                self._ready = machine.snapshot()
        else:
            machine = self._machine
            assert self._ready is not None
            machine.resume()
            if own_sound:
                machine.audio.switch(WavSink(path, streams=machine.audio.streams)).close()
            machine.restore(self._ready)
        witness.begin(machine)
        return machine

    def _discard(self) -> None:
        machine, self._machine, self._ready = self._machine, None, None
        if machine is not None:
            machine.close()

    def _is_worn(self) -> bool:
        """Whether the process has grown by more than a case should leave, since its first."""
        status = Path("/proc/self/statm").read_text().split()
        now = (
            int(status[1]) * os.sysconf("SC_PAGESIZE"),
            len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names are enough
            threading.active_count(),
        )
        if self._kept is None:
            self._kept = now
        return any(count - first > most for count, first, most in zip(now, self._kept, _MOST_LEFT, strict=True))

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_error: object) -> None:
        self._discard()


class _Witness:
    """Sees what the machine prints and plays in one case."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._machine: Machine | None = None
        self._began_ns = 0
        self._text = bytearray()
        self.printed, self.played = hashlib.sha256(), hashlib.sha256()
        self.guest_ns = 0

    def begin(self, machine: Machine) -> None:
        self._machine, self._began_ns = machine, machine.clock.now()
        machine.console.output = self._print
        machine.audio.taps[:] = [self]

    def end(self, machine: Machine | None, *, keep_sound: bool) -> bytes:
        """Look at the machine for the last time; return what it has played, as a WAV file, if that is wanted."""
        if machine is None or machine is not self._machine:
            return b""
        machine.console.flush()
        self.guest_ns = machine.clock.now() - self._began_ns
        machine.console.output = None
        machine.audio.taps.clear()
        sink = machine.audio.backend
        if not keep_sound or not isinstance(sink, WavSink) or not sink.played:
            return b""
        machine.close()
        path = sink.files[-1].path
        return path.read_bytes() if path.stat().st_size <= _LONGEST_SOUND else b""

    @property
    def console(self) -> str:
        return tail(bytes(self._text))

    def _print(self, data: bytes) -> None:
        self.printed.update(data)
        self._text += data
        del self._text[: -4 * TAIL_BYTES]
        self._show(data)

    def record(self, stream: int, params: PcmParams, data: bytes) -> None:
        """Take what was played: see Tap."""
        self.played.update(f"{stream} {params} {len(data)}\n".encode())
        self.played.update(data)
