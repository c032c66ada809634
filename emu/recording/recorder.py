"""Records a run: each input is written down when it is applied, between two turns."""

import base64
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from devices.audio import Capture
from devices.contracts import Event as EntryOfHeap
from devices.contracts import Events, Moment
from emu.recording.file import LONGEST_SOUND, LONGEST_TEXT, Entry, Writer
from emu.recording.header import Files, describe
from emu.recording.journal import Journal
from emu.timing.events import Event

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["Recorder"]

_LATEST = (1 << 62) - 1


class Recorder(Journal):
    """Records one machine with ``writer``.

    Each way in from outside is replaced, on that machine's own objects, by one that writes down what passes. What comes
    in the middle of a turn, from what Python does with the output or at a guest time, waits for its end.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.writer = writer
        #: The command line that replays it, where somebody knows that.
        self.repeat = ""
        self._waiting: deque[Callable[[], None]] = deque()
        self._ended = False

    def begin(self, machine: "Machine", memory: int, files: Files, snapshot: str | None) -> None:
        """Write the header, and listen from now on; raises UsageError if a file cannot be read."""
        header = describe(machine, memory, files, snapshot)
        self._machine = machine
        self.writer.write(header)
        send = machine.console.send

        def type_(data: bytes | str) -> None:
            octets = data.encode() if isinstance(data, str) else bytes(data)
            for start in range(0, len(octets), LONGEST_TEXT) or (0,):
                piece = octets[start : start + LONGEST_TEXT]
                self.apply("type", [piece.decode("latin-1")], partial(send, piece))

        machine.console.send = type_  # type: ignore[method-assign]
        self._listen(machine.console, "hold", "hold", lambda held: [held])
        self._listen(machine.hvc, "resize", "resize", lambda columns, rows: [columns, rows])
        self._listen(machine.sound.jacks, "plug", "jack", lambda name, *, connected: [name, connected])
        self._listen(machine.sound.controls, "set", "control", lambda name, values: [name, *_pair(values)])
        self._listen(machine, "switch_off", "off", list)
        machine.events = _RecordedEvents(self, machine.events)

    def _listen(self, owner: object, method: str, kind: str, arguments: Callable[..., list[Any]]) -> None:
        """Write down the calls of ``owner``'s ``method``, whose ``arguments`` are those of the entry."""
        real = getattr(owner, method)

        def door(*positional: Any, **named: Any) -> None:
            self.apply(kind, arguments(*positional, **named), lambda: real(*positional, **named))

        setattr(owner, method, door)

    def apply(self, kind: str, arguments: list[Any], action: Callable[[], None]) -> None:
        """Do ``action`` and write it down, now, or when the turn is over."""
        if self.in_turn:
            self.machine.check_thread()
            self._waiting.append(lambda: self.apply(kind, arguments, action))
            return
        action()
        self.write(kind, arguments)

    def write(self, kind: str, arguments: list[Any]) -> None:
        """Write an entry."""
        if not self._ended:
            self.writer.write(Entry(self.turn, self.machine.clock.now(), kind, arguments))

    def between(self) -> None:
        """Apply what has waited."""
        self.keep_account()
        while self._waiting:
            self._waiting.popleft()()

    def capture(self, stream: int, port: Capture) -> Capture:
        """Write down what is read."""
        return _RecordedCapture(self, stream, port)

    def end(self) -> None:
        """Write down what the run has come to, unless what ended it did so in the middle of a turn."""
        if self._ended:
            return
        account = self.account()
        if self.in_turn:
            self.write("cut", [])
        else:
            self.write("end", account)
        self._ended = True


def _pair(values: int | Sequence[int]) -> list[int]:
    return [values, values] if isinstance(values, int) else list(values)


class _RecordedEvents:
    """``machine.events`` for Python's own use: its deadlines, too, are where time jumps to, and the CPU stops."""

    def __init__(self, recorder: Recorder, heap: Events) -> None:
        self._recorder, self._heap = recorder, heap
        self._count = 0

    def at(self, deadline: int, action: Callable[[], None]) -> Event:
        """Run ``action`` when guest time has reached ``deadline``."""
        deadline = min(max(deadline, 0), _LATEST)
        event = _RecordedEvent(self._recorder, deadline, action)

        def enter() -> None:
            event.number = self._count
            self._count += 1
            event.entered = self._heap.at(deadline, event.happen)

        self._recorder.apply("at", [deadline], enter)
        return event

    def resume(self, moment: Moment, action: Callable[[], None]) -> EntryOfHeap:
        """Pass on: what belongs to the machine is not Python's."""
        return self._heap.resume(moment, action)


class _RecordedEvent(Event):
    __slots__ = ("_recorder", "entered", "number")

    def __init__(self, recorder: Recorder, deadline: int, action: Callable[[], None]) -> None:
        super().__init__((deadline, 0), action)
        self._recorder = recorder
        self.number = 0
        self.entered: EntryOfHeap | None = None

    def happen(self) -> None:
        action, self.action = self.action, None
        if action is not None:
            action()

    def cancel(self) -> None:
        if self.action is None:
            return
        self.action = None
        self._recorder.apply("cancel", [self.number], self._leave)

    def _leave(self) -> None:
        if self.entered is not None:
            self.entered.cancel()


class _RecordedCapture(Capture):
    def __init__(self, recorder: Recorder, stream: int, port: Capture) -> None:
        self._recorder, self._stream, self._port = recorder, stream, port
        self.start, self.stop, self.close = port.start, port.stop, port.close  # type: ignore[method-assign]

    def read(self, size: int) -> bytes:
        data = self._port.read(size)
        for start in range(0, size, LONGEST_SOUND):
            piece = data[start : start + LONGEST_SOUND]
            packed = base64.b64encode(zlib.compress(piece, 1)).decode()
            self._recorder.write("sound", [self._stream, len(piece), packed])
        return data

    def skip(self, size: int) -> None:
        self._port.skip(size)
