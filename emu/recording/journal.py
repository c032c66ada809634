"""What recording and replaying have in common: the count of turns, the account of the console, and the sound's seal."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from devices.audio import AudioBackend, Capture, PcmParams, Playback
from devices.audio.forwarding import ForwardingBackend
from emu.joints import Joints
from emu.recording.header import Files

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["Journal"]

#: Bytes printed before note is taken of them: the console keeps a megabyte.
_OFTEN = 256 << 10


class Journal(Joints, ABC):
    """Stands at the joints of a machine where its turns pass, and its sound.

    ``turn`` counts the turns of the loop that the guest can notice: it runs, or time jumps. Mere sleeping, with nothing
    to wait for, is none.
    """

    def __init__(self) -> None:
        self.turn = 0
        #: Whether a turn is going on, in which no input can be applied: the next would not know where.
        self.in_turn = False
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._machine: Machine | None = None

    @abstractmethod
    def begin(self, machine: "Machine", memory: int, files: Files, snapshot: str | None) -> None:
        """``machine``, with ``memory`` bytes, is complete and has not run yet.

        ``files`` are what it boots from; ``snapshot`` is the identity of one that it goes on from instead.
        """

    @abstractmethod
    def end(self) -> None:
        """The machine is about to be closed."""

    @property
    def machine(self) -> "Machine":
        """The one whose journal this is."""
        assert self._machine is not None
        return self._machine

    # ---------------------------------------------------------------- at the joints

    def run(self, run: Callable[[], bool]) -> Callable[[], bool]:
        """Count a turn."""

        def counted() -> bool:
            self.turn += 1
            self.in_turn = True
            return run()

        return counted

    def wait(
        self, wait: Callable[[int | None, Callable[[float], None]], None]
    ) -> Callable[[int | None, Callable[[float], None]], None]:
        """Count a turn, if there is something to wait for."""

        def counted(deadline: int | None, sleep: Callable[[float], None]) -> None:
            if deadline is None:
                self.idle()
            else:
                self.turn += 1
                self.in_turn = True
            wait(deadline, sleep)

        return counted

    def look(self, look: Callable[[], None]) -> Callable[[], None]:
        """Come between two turns."""

        def between() -> None:
            self.in_turn = False
            self.between()
            look()

        return between

    def idle(self) -> None:
        """Nothing will happen but what comes from outside."""

    @abstractmethod
    def between(self) -> None:
        """A step of the loop is over."""

    def audio(self, backend: AudioBackend) -> AudioBackend:
        """Let nothing of the backend reach the guest but what ``capture`` makes of the recorded sound."""
        return _SealedBackend(self, backend)

    @abstractmethod
    def capture(self, stream: int, port: Capture) -> Capture:
        """Return what the guest is to record from in place of ``port``."""

    # ---------------------------------------------------------------- the account

    def account(self) -> list[object]:
        """Return what the run has come to: bytes printed, their SHA-256, and what became of the power."""
        console, power = self.machine.console, self.machine.power
        console.flush()
        self._hash.update(console.since(self._hashed))
        self._hashed = console.printed
        return [console.printed, self._hash.hexdigest(), "on" if power is None else power.action.name.lower()]

    def keep_account(self) -> None:
        """Take note of what was printed, while it is still there."""
        if self.machine.console.printed - self._hashed > _OFTEN:
            self.account()


class _SealedBackend(ForwardingBackend):
    def __init__(self, journal: Journal, backend: AudioBackend) -> None:
        super().__init__(backend)
        self._journal = journal

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        return _SealedPlayback(super().open_playback(stream, params))

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        return self._journal.capture(stream, super().open_capture(stream, params))


class _SealedPlayback(Playback):
    """Plays, and has neither a latency nor a wish for parts: the guest would notice."""

    def __init__(self, port: Playback) -> None:
        self._port = port
        self.start, self.stop, self.close = port.start, port.stop, port.close  # type: ignore[method-assign]

    def write(self, data: bytes) -> None:
        self._port.write(data)

    def write_part(self, data: bytes) -> None:
        self._port.write_part(data)
