"""Another seed is another timing: how fast the CPU is, and how late a device's answers are, is drawn from it.

All of it is legal: a driver may rely on the order within a queue, and on a line that rises after its cause, but never
on how soon. So each seed shows a driver's races in another light, and always the same one. What is exact by contract
stays so: timers, and when a period of sound is over.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

from devices.contracts import NEVER_NS, Clock, Event, Events, IrqLine
from devices.state import Moment, Ns, check, resume, saved
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Queue
from emu.chance import Chance
from emu.joints import Joints
from emu.timing.warp import PS_PER_BLOCK, WarpClock

__all__ = ["LATEST_NS", "USUAL_SEED", "Jitter", "JitterState", "draw_ps_per_block", "shifts_timing"]

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


class LateDeviceState(TypedDict):
    """When the newest notification arrives, or has; for each queue, one that has not yet."""

    last: Ns
    pending: list[Moment | None]


class LateLineState(TypedDict):
    """When the newest rise arrives, or has; the device's level; when the line rises to it."""

    last: Ns
    level: bool
    rise: Moment | None


class JitterState(TypedDict):
    """What is late, by the device's slot and by the number of the interrupt."""

    devices: dict[str, LateDeviceState]
    lines: dict[str, LateLineState]


class Jitter(Joints):
    """Notifications and interrupts that arrive up to LATEST_NS late."""

    def __init__(self, chance: Chance, clock: Clock, events: Events) -> None:
        self._chance, self._clock, self._events = chance, clock, events
        self._devices: dict[str, _LateDevice] = {}
        self._lines: dict[str, _LateLine] = {}

    def virtio(self, slot: int, device: VirtioDevice) -> VirtioDevice:
        """Between a transport and its device."""
        late = self._devices[str(slot)] = _LateDevice(device, self._late(f"notification in slot {slot}"))
        return late

    def irq(self, source: int, name: str, line: IrqLine) -> IrqLine:  # noqa: ARG002
        """Between a device and the interrupt controller."""
        late = self._lines[str(source)] = _LateLine(line, self._late(f"interrupt {source}"))
        return late

    def state(self) -> JitterState:
        """Return the state of all that it is in between of."""
        return {
            "devices": {slot: device.state() for slot, device in self._devices.items()},
            "lines": {source: line.state() for source, line in self._lines.items()},
        }

    def restore(self, state: JitterState) -> None:
        """Become what ``state`` says; what is not in it, as in that of a machine without jitter, is not late.

        The devices must have their queues again. Raises UsageError for more devices or lines than there are.
        """
        devices, lines = state["devices"], state["lines"]
        check(devices.keys() <= self._devices.keys() and lines.keys() <= self._lines.keys(), "what is late")
        for slot, device in self._devices.items():
            device.restore(devices.get(slot) or {"last": 0, "pending": [None] * len(device.queue_sizes)})
        for source, line in self._lines.items():
            line.restore(lines.get(source, {"last": 0, "level": False, "rise": None}))

    def _late(self, use: str) -> "_Late":
        return _Late(lambda: self._chance.number(use, LATEST_NS), self._clock, self._events)


class _Late:
    """Has actions done late, each as much as is drawn for it, but never before an earlier one."""

    def __init__(self, draw: Callable[[], int], clock: Clock, events: Events) -> None:
        self._draw, self._clock, self.events = draw, clock, events
        self.last: Ns = 0

    def __call__(self, action: Callable[[], None]) -> Event:
        self.last = max(self.last, self._clock.now() + self._draw())
        return self.events.at(self.last, action)

    def restore(self, last: Ns) -> None:
        check(last < NEVER_NS, "what is late")
        self.last = last


class _LateDevice(VirtioDevice):
    """A device that learns late that there is something in a queue.

    The notifications of all its queues stay in order: a driver fills a stream's queue before it starts the stream.
    """

    def __init__(self, device: VirtioDevice, late: _Late) -> None:
        self.device_id, self.features, self.queue_sizes = device.device_id, device.features, device.queue_sizes
        self._device = device
        self._late = late
        self._started = False
        #: One for each queue: the device then takes all that is in it.
        self._pending: list[Event | None] = [None] * len(device.queue_sizes)

    def config(self) -> bytes:
        return self._device.config()

    def write_config(self, offset: int, data: bytes) -> None:
        self._device.write_config(offset, data)

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self._started = True
        self._device.attach(queues, features, config_changed)

    def activate(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self._started = True
        self._device.activate(queues, features, config_changed)

    def notify(self, index: int) -> None:
        if self._pending[index] is None:
            self._pending[index] = self._late(partial(self._arrive, index))

    def reset(self) -> None:
        for event in self._pending:
            if event is not None:
                event.cancel()
        self._pending = [None] * len(self._pending)
        self._started = False
        self._device.reset()

    def state(self) -> LateDeviceState:
        return {"last": self._late.last, "pending": [saved(event) for event in self._pending]}

    def restore(self, state: LateDeviceState) -> None:
        pending = state["pending"]
        check(len(pending) == len(self._pending) and (self._started or not any(pending)), "what is late")
        self._late.restore(state["last"])
        self._pending = [
            resume(self._late.events, moment, partial(self._arrive, index)) for index, moment in enumerate(pending)
        ]

    def _arrive(self, index: int) -> None:
        self._pending[index] = None
        self._device.notify(index)


class _LateLine:
    """An interrupt line that rises late, unless it has fallen again by then, and falls at once."""

    def __init__(self, line: IrqLine, late: _Late) -> None:
        self._line = line
        self._late = late
        self._level = False
        self._rise: Event | None = None

    def __call__(self, level: bool) -> None:
        if not level:
            if self._rise is not None:
                self._rise.cancel()
                self._rise = None
            self._line(False)  # also where it never rose here: it did in a machine without jitter, which was saved
        elif not self._level:
            self._rise = self._late(self._arrive)
        self._level = level

    def state(self) -> LateLineState:
        return {"last": self._late.last, "level": self._level, "rise": saved(self._rise)}

    def restore(self, state: LateLineState) -> None:
        self._late.restore(state["last"])
        self._level = state["level"]
        self._rise = resume(self._late.events, state["rise"], self._arrive)

    def _arrive(self) -> None:
        self._rise = None
        self._line(True)
