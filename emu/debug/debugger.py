"""The way in for a debugger: who connects finds the machine standing, and leaves it running."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from devices.errors import UsageError
from emu.cpu.engine import Engine
from emu.debug.server import Server
from emu.debug.stub import Stub
from emu.debug.target import Target
from emu.memory import Ram
from emu.timing.loop import Loop

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["Debugger"]


class Debugger:
    """Listens at ``place``, a host and a port, for a debugger of ``machine``, which has these ``parts``.

    With ``wait`` the machine stands until one has come. Raises UsageError if the port cannot be had.
    """

    def __init__(
        self, machine: "Machine", parts: tuple[Engine, Loop, Ram], place: tuple[str, int], *, wait: bool
    ) -> None:
        self._machine, self._parts = machine, parts
        self._target: Target | None = None
        self._stub: Stub | None = None
        self._server = Server(*place, machine.post, self._meet, self._part)
        #: Where it listens.
        self.port: int = self._server.port
        if wait:
            self._stand()

    def check_stands_not(self) -> None:
        """Raise UsageError if the debugger has the machine stand: it is to say when it goes on."""
        if self._target is not None and self._target.stands:
            raise UsageError("a debugger has the machine stand; let it go on there")

    def close(self) -> None:
        """Say goodbye, and listen no more."""
        if self._stub is not None:
            self._stub.end()
        self._server.close()

    def _stand(self) -> Target:
        if self._target is None:
            self._target = Target(self._machine, *self._parts)
        self._target.stand()
        return self._target

    def _meet(self, send: Callable[[bytes], None], leave: Callable[[], None]) -> Stub:
        self._stub = Stub(self._stand(), send, leave)
        return self._stub

    def _part(self) -> None:
        target, self._target, self._stub = self._target, None, None
        if target is not None:
            target.detach()
