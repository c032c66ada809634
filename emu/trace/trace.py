"""Watches a machine: what passes its joints becomes records.

Each of the other modules here watches one kind of joint and calls ``emit`` for what it sees.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic_ns

from devices.audio import AudioBackend
from devices.contracts import IrqLine
from devices.placement import Placement
from devices.plic import Plic
from devices.virtio.device import VirtioDevice
from devices.virtio.mmio import MmioTransport
from emu.board import virtio_irq
from emu.cpu.hart import SupervisorCalls
from emu.joints import Joints, Read, Write
from emu.timing.clock import Clock
from emu.timing.warp import WarpClock
from emu.trace import cpu, sbi
from emu.trace.irqs import Irqs
from emu.trace.record import DEFAULT, Detail, Emit, Record, parse_categories
from emu.trace.requests import watch_sound
from emu.trace.streams import watch_backend
from emu.trace.virtio import Slot

__all__ = ["Trace"]

_CARD, _SHARE = 1, 26


class Trace:
    """For ``Machine(trace=...)``: ``sink`` gets a Record of each event in ``categories``.

    The sink is called on the machine's thread. It may be a list's ``append``, or a TraceFile, for a trace viewer:

        records = []
        with Machine(clock="warp", trace=Trace(records.append, "snd")) as machine:
            machine.console.run("aplay -D hw:0,0 /root/tone.wav")
        late = max(record.detail["late_us"] for record in records if record.name == "period")

    ``categories`` is a string like "virtio,snd", "all", or a list of names: see CATEGORIES. Raises UsageError for
    unknown ones.
    """

    def __init__(self, sink: Callable[[Record], None], categories: str | Iterable[str] = DEFAULT) -> None:
        self.categories = parse_categories(categories)
        self._sink = sink
        self._machines = 0

    def joints(self, clock: Clock) -> Joints:
        """Watch another machine, whose time is ``clock``."""
        self._machines += 1
        return _WatchedJoints(self.categories, self._sink, clock, self._machines)


class _WatchedJoints(Joints):
    def __init__(self, categories: frozenset[str], sink: Callable[[Record], None], clock: Clock, machine: int) -> None:
        self._categories = categories
        self._now = clock.now
        self._slots: dict[int, Slot] = {}
        self._cards = 0
        self._muted = False
        now = clock.now
        host: Callable[[], int] = (lambda: 0) if isinstance(clock, WarpClock) else monotonic_ns

        def emit(
            category: str, track: str, name: str, detail: Detail, *, since: int | None = None, until: int | None = None
        ) -> None:
            if self._muted:
                return
            time = now()
            span = None if since is None else (since, time if until is None else until)
            sink(Record(time, category, track, name, detail, span, host(), machine))

        self._emit: Emit = emit
        self._irqs = Irqs(emit, now)

    def audio(self, backend: AudioBackend) -> AudioBackend:
        return watch_backend(backend, self._emit, self._now) if "snd" in self._categories else backend

    def virtio(self, slot: int, device: VirtioDevice) -> VirtioDevice:
        if "net" in self._categories and device.device_id == _CARD:
            from emu.trace.frames import watch_card  # noqa: PLC0415 - few machines have one

            device = watch_card(device, self._cards, self._emit)
            self._cards += 1
        if "virtio" in self._categories:
            self._slots[virtio_irq(slot)] = watched = Slot(slot, device, self._emit)
            device = watched.device
            if device.device_id == _SHARE:
                from emu.trace.files import watch_share  # noqa: PLC0415 - few machines have one

                device = watch_share(device, self._emit)
        return watch_sound(device, self._emit) if "snd" in self._categories else device

    def irq(self, source: int, name: str, line: IrqLine) -> IrqLine:
        if "plic" in self._categories:
            line = self._irqs.line(source, name, line)
        return self._slots[source].line(line) if source in self._slots else line

    def timer(self, line: IrqLine) -> IrqLine:
        return cpu.watch_timer(line, self._emit, self._now) if "timer" in self._categories else line

    def registers(self, placement: Placement) -> tuple[Read, Write]:
        device = placement.device
        if isinstance(device, Plic) and "plic" in self._categories:
            return self._irqs.registers(device)
        if isinstance(device, MmioTransport) and placement.irq in self._slots:
            return self._slots[placement.irq].registers(device)
        return device.read, device.write

    def calls(self, calls: SupervisorCalls) -> SupervisorCalls:
        return sbi.watch(calls, self._emit, self._now) if "sbi" in self._categories else calls

    def exceptions(self, handler: Callable[[int, int], None]) -> Callable[[int, int], None]:
        return cpu.watch_exceptions(handler, self._emit) if "trap" in self._categories else handler

    def run(self, run: Callable[[], bool]) -> Callable[[], bool]:
        return cpu.watch_run(run, self._emit, self._now) if "run" in self._categories else run

    def wait(
        self, wait: Callable[[int | None, Callable[[float], None]], None]
    ) -> Callable[[int | None, Callable[[float], None]], None]:
        return cpu.watch_wait(wait, self._emit, self._now) if "run" in self._categories else wait

    @contextmanager
    def muted(self) -> Iterator[None]:
        self._muted = True
        try:
            yield
        finally:
            self._muted = False
