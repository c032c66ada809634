"""Another seed is another timing: how fast the CPU is, and how late a device's answers are, is drawn from it.

All of it is legal: a driver may rely on the order within a queue, and on a line that rises after its cause, but never
on how soon. So each seed shows a driver's races in another light, and always the same one. What is exact by contract
stays so: timers, and when a period of sound is over.
"""

from collections.abc import Callable, Sequence
from functools import partial

from devices.contracts import Clock, Event, Events, IrqLine
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Queue
from emu.chance import Chance
from emu.joints import Joints
from emu.timing.warp import PS_PER_BLOCK, WarpClock

__all__ = ["LATEST_NS", "USUAL_SEED", "Jitter", "draw_ps_per_block", "shifts_timing"]

#: The seed that shifts nothing: the default, with the warp clock.
USUAL_SEED = 0

#: How late a device handles a notification, and its interrupt arrives, at most (guest time): a host's virtual machine
#: monitor needs some tens of us for either, and the shortest period of sound is ten times as long.
LATEST_NS = 50_000


def shifts_timing(clock: Clock, chance: Chance) -> bool:
    """Whether the seed shifts the guest's timing, too; it does so under warp only, where time is repeatable."""
    return isinstance(clock, WarpClock) and chance.seed != USUAL_SEED


def draw_ps_per_block(chance: Chance) -> int:
    """Return the guest time that a block of code takes, in picoseconds: the usual one, or up to 25 % off."""
    most = PS_PER_BLOCK // 4
    return PS_PER_BLOCK - most + chance.number("ps per block", 2 * most)


class Jitter(Joints):
    """Notifications and interrupts that arrive up to LATEST_NS late."""

    def __init__(self, chance: Chance, clock: Clock, events: Events) -> None:
        self._chance, self._clock, self._events = chance, clock, events

    def virtio(self, slot: int, device: VirtioDevice) -> VirtioDevice:
        """Between a transport and its device."""
        return _LateDevice(device, self._late(f"notification in slot {slot}"))

    def irq(self, source: int, name: str, line: IrqLine) -> IrqLine:  # noqa: ARG002
        """Between a device and the interrupt controller."""
        return _LateLine(line, self._late(f"interrupt {source}"))

    def _late(self, use: str) -> "_Late":
        return _Late(lambda: self._chance.number(use, LATEST_NS), self._clock, self._events)


class _Late:
    """Has actions done late, each as much as is drawn for it, but never before an earlier one."""

    def __init__(self, draw: Callable[[], int], clock: Clock, events: Events) -> None:
        self._draw, self._clock, self._events = draw, clock, events
        self._last = 0

    def __call__(self, action: Callable[[], None]) -> Event:
        self._last = max(self._last, self._clock.now() + self._draw())
        return self._events.at(self._last, action)


class _LateDevice(VirtioDevice):
    """A device that learns late that there is something in a queue.

    The notifications of all its queues stay in order: a driver fills a stream's queue before it starts the stream.
    """

    def __init__(self, device: VirtioDevice, late: _Late) -> None:
        self.device_id, self.features, self.queue_sizes = device.device_id, device.features, device.queue_sizes
        self._device = device
        self._late = late
        self._pending: dict[int, Event] = {}  # one for each queue: the device then takes all that is in it

    def config(self) -> bytes:
        return self._device.config()

    def write_config(self, offset: int, data: bytes) -> None:
        self._device.write_config(offset, data)

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self._device.attach(queues, features, config_changed)

    def activate(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self._device.activate(queues, features, config_changed)

    def notify(self, index: int) -> None:
        if index not in self._pending:
            self._pending[index] = self._late(partial(self._arrive, index))

    def reset(self) -> None:
        for event in self._pending.values():
            event.cancel()
        self._pending.clear()
        self._device.reset()

    def _arrive(self, index: int) -> None:
        del self._pending[index]
        self._device.notify(index)


class _LateLine:
    """An interrupt line that rises late, unless it has fallen again by then, and falls at once."""

    def __init__(self, line: IrqLine, late: _Late) -> None:
        self._line = line
        self._late = late
        self._level = False
        self._rise: Event | None = None

    def __call__(self, level: bool) -> None:
        if level == self._level:
            return
        self._level = level
        if level:
            self._rise = self._late(self._arrive)
        elif self._rise is not None:
            self._rise.cancel()
            self._rise = None
        else:
            self._line(False)

    def _arrive(self) -> None:
        self._rise = None
        self._line(True)
