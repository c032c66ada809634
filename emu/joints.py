"""Where the parts of a machine join: an observer can be put between two parts without either knowing.

While a machine is assembled, it passes each connection between parts through one of these methods, once. Here they
return it unchanged, so an unobserved machine pays nothing; those in emu/trace/ return it wrapped.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from devices.audio import AudioBackend
from devices.contracts import IrqLine
from devices.placement import Placement
from devices.virtio.device import VirtioDevice
from emu.cpu.hart import ExceptionHandler, SupervisorCalls

__all__ = ["Joints", "Read", "Write"]

#: A device's registers: (offset, size) -> value; (offset, size, value).
Read = Callable[[int, int], int]
Write = Callable[[int, int, int], None]


class Joints:
    """The joints of one machine."""

    def audio(self, backend: AudioBackend) -> AudioBackend:
        """From the sound device to its backend."""
        return backend

    def virtio(self, slot: int, device: VirtioDevice) -> VirtioDevice:  # noqa: ARG002
        """From the transport in ``slot`` to its device."""
        return device

    def irq(self, source: int, name: str, line: IrqLine) -> IrqLine:  # noqa: ARG002
        """From the device ``name`` to the interrupt controller."""
        return line

    def timer(self, line: IrqLine) -> IrqLine:
        """From the timer, the firmware's or the CLINT's, to the hart."""
        return line

    def registers(self, placement: Placement) -> tuple[Read, Write]:
        """From the bus to a device."""
        return placement.device.read, placement.device.write

    def calls(self, calls: SupervisorCalls) -> SupervisorCalls:
        """From the hart to the built-in firmware."""
        return calls

    def exceptions(self, handler: ExceptionHandler) -> ExceptionHandler:
        """From the CPU, at each exception (cause, pc), to the handler that enters the trap."""
        return handler

    def run(self, run: Callable[[], bool]) -> Callable[[], bool]:
        """From the machine's loop to the CPU."""
        return run

    def wait(
        self, wait: Callable[[int | None, Callable[[float], None]], None]
    ) -> Callable[[int | None, Callable[[float], None]], None]:
        """From the machine's loop to the clock, when the CPU waits."""
        return wait

    def look(self, look: Callable[[], None]) -> Callable[[], None]:
        """From the machine's loop to the machine, after each of its steps."""
        return look

    def muted(self) -> AbstractContextManager[None]:
        """While a machine is restored: what passes the joints then is not what the guest does."""
        return nullcontext()
