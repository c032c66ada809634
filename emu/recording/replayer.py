"""Replays a recording: each input is applied after as many turns as it was."""

import base64
import binascii
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from devices.audio import Capture
from devices.contracts import Event
from devices.errors import PyemuError, UsageError
from emu.recording.file import Entry, Reader
from emu.recording.header import Files, compare, describe
from emu.recording.journal import Journal
from emu.timing.events import DeadlineHeap

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["ReplayError", "Replayer"]

logger = logging.getLogger(__name__)


class ReplayError(PyemuError):
    """A replay is not the run that was recorded: a bug of pyemu's, or the file was changed."""


class Replayer(Journal):
    """Replays one machine from ``reader``: the ways in from outside are closed, but for the power switch."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        self._over = False
        self._inputs: dict[str, Callable[..., None]] = {}
        self._pending: dict[int, Event] = {}  # the events that the recorded program waited for, by number
        self._events = 0
        self._late = DeadlineHeap()  # for this program's own

    def begin(self, machine: "Machine", memory: int, files: Files, snapshot: str | None) -> None:
        """Compare ``machine`` to what the recording says, and apply what came before it ran; raises UsageError."""
        if self.reader.ahead is None:
            raise UsageError(f"{self.reader.path} ends here: what came after the reset was not recorded")
        here = describe(machine, memory, files, snapshot)
        if isinstance(self.reader.ahead, Entry):
            raise UsageError(f"{self.reader.path} is being replayed already; open it again")
        compare(self.reader.path, self.reader.ahead, here)
        self.reader.take()
        self.reader.same = False
        self._machine = machine
        console, jacks, controls = machine.console, machine.sound.jacks, machine.sound.controls
        self._inputs = {
            "type": lambda text, send=console.send: send(text.encode("latin-1")),
            "hold": console.hold,
            "resize": machine.hvc.resize,
            "jack": lambda name, plugged, plug=jacks.plug: plug(name, connected=plugged),
            "control": lambda name, left, right, set_=controls.set: set_(name, (left, right)),
            "off": machine.switch_off,
            "at": self._enter_event,
            "cancel": self._cancel_event,
        }
        self._heap = machine.events
        machine.events = self._late
        doors: Sequence[tuple[object, str, Callable[..., None]]] = (
            (console, "send", _refuse),
            (console, "run", _refuse),
            (console, "hold", _ignore),
            (machine.hvc, "resize", _ignore),
            (jacks, "plug", _refuse),
            (controls, "set", _refuse),
        )
        for owner, method, closed in doors:
            setattr(owner, method, closed)
        self._apply_due()

    def between(self) -> None:
        """Apply what was applied here."""
        self.keep_account()
        self._apply_due()
        self._late.run_due(self.machine.clock.now())

    def idle(self) -> None:
        """Nothing more will happen, so nothing more can have happened."""
        if not self._over:
            self._differ("the guest waits for ever")
        self.machine.switch_off()

    def capture(self, stream: int, port: Capture) -> Capture:
        """Have the guest record what it recorded."""
        return _ReplayedCapture(self, stream, port)

    def end(self) -> None:
        """Nothing is to be written."""

    # ---------------------------------------------------------------- inputs

    def _apply_due(self) -> None:
        while not self._over and isinstance(entry := self.reader.ahead, Entry) and entry.turn == self.turn:
            if entry.kind == "cut":
                self._finish()
                return
            self._compare_time(entry)
            if entry.kind == "end":
                self._compare_account(entry.arguments)
                self._finish()
                self.reader.same = True
                return
            if entry.kind not in self._inputs:
                self._differ("the guest has not recorded a sound")
            self.reader.take()
            try:
                self._inputs[entry.kind](*entry.arguments)
            except PyemuError as error:
                raise UsageError(f"{self.reader.path} is damaged: {error}") from error
        if self._over:
            return
        if self.reader.ahead is None:
            self._over = True
            logger.warning("%s has no end (pyemu was killed?); the guest goes on by itself", self.reader.path)
        elif isinstance(self.reader.ahead, dict) or self.reader.ahead.turn < self.turn:
            self._differ("an input was not due")
        elif self.machine.power is not None:
            self._differ("the guest was switched off")

    def _finish(self) -> None:
        self.reader.take()
        self._over = True
        if self.machine.power is None:
            self.machine.switch_off()

    def _enter_event(self, deadline: int) -> None:
        number = self._events
        self._events += 1
        self._pending[number] = self._heap.at(deadline, lambda: self._forget_event(number))

    def _forget_event(self, number: int) -> None:
        self._pending.pop(number, None)

    def _cancel_event(self, number: int) -> None:
        event = self._pending.pop(number, None)
        if event is not None:
            event.cancel()

    def take_sound(self, stream: int, size: int) -> bytes:
        """Return the piece of sound that comes next, at most ``size`` bytes."""
        entry = self.reader.ahead
        if self._over:
            return bytes(size)
        if not isinstance(entry, Entry) or entry.kind != "sound" or entry.turn != self.turn:
            self._differ("the guest records a sound")
        self._compare_time(entry)
        self.reader.take()
        recorded, length, packed = entry.arguments
        if recorded != stream or length > size:
            self._differ("the guest records another sound")
        try:
            data = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), length + 1)
        except (zlib.error, binascii.Error, ValueError) as error:
            raise UsageError(f"{self.reader.path} is damaged: a recorded sound cannot be unpacked") from error
        if len(data) != length:
            raise UsageError(f"{self.reader.path} is damaged: a recorded sound has another length")
        return data

    # ---------------------------------------------------------------- comparing

    def _compare_time(self, entry: Entry) -> None:
        if entry.guest_ns != self.machine.clock.now():
            self._differ(f"it should be at {_time(entry.guest_ns)}")

    def _compare_account(self, recorded: list[Any]) -> None:
        printed, digest, power = self.account()
        if recorded[2] != power:
            self._differ(f"in the end the power was {_shown(recorded[2])}, and now it is {power}")
        if recorded[0] != printed:
            self._differ(f"in the end {recorded[0]} bytes were printed, and now {printed}")
        if recorded[1] != digest:
            self._differ(f"{printed} bytes were printed, but they are not the same")

    def _differ(self, how: str) -> NoReturn:
        self._over = True
        now = _time(self.machine.clock.now())
        raise ReplayError(
            f"the replay differs from {self.reader.path} at {now} (turn {self.turn}): {how}; "
            "either the file was changed, or this is a bug of pyemu's"
        )


def _time(ns: int) -> str:
    return f"{ns / 1e9:.9f} s"


def _shown(power: str) -> str:
    return power if power in {"on", "off", "reset", "fail"} else "something else"


def _refuse(*_positional: Any, **_named: Any) -> NoReturn:
    raise UsageError("this is a replay; whatever comes from outside comes from the recording")


def _ignore(*_positional: Any) -> None:
    pass


class _ReplayedCapture(Capture):
    """What was recorded; the real ``port`` is not asked."""

    def __init__(self, replayer: Replayer, stream: int, port: Capture) -> None:
        self._replayer, self._stream = replayer, stream
        self.close = port.close  # type: ignore[method-assign]

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._replayer.take_sound(self._stream, size - len(data))
        return data

    def skip(self, size: int) -> None:
        """What the guest was too slow for was not recorded."""
