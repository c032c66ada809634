import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emu.cpu.engine import Reg
from emu.timing.clock import HostClock
from emu.timing.doorbell import Alarm, AlarmThread, Doorbell
from tests.emu.asm import S1, T0, addi, j, sw
from tests.emu.cpu.bare import BASE, Bare, Recorder

MS = 1_000_000
FAR = 3_600_000 * MS  # an hour: what waits for that, fails


class Cpu:
    """Something that runs until it is stopped, as the engine does; a stop while it does not run is lost."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.alarm = AlarmThread(self.stopped.set, time.monotonic_ns)
        self.doorbell = Doorbell(self.alarm)

    def run(self, deadline: int | None = None, *, nearer: int | None = None) -> None:
        """Run until ``deadline``; the guest asks for a ``nearer`` one."""
        self.stopped.clear()
        self.doorbell.enter(deadline)
        if nearer is not None:
            self.doorbell.nearer(nearer)
        self.stopped.wait()
        self.doorbell.acknowledge()


@pytest.fixture
def cpu() -> Iterator[Cpu]:
    cpu = Cpu()
    yield cpu
    cpu.alarm.close()


def test_it_rings_at_the_deadline(cpu: Cpu) -> None:
    deadline = time.monotonic_ns() + 20 * MS
    cpu.run(deadline)
    assert time.monotonic_ns() >= deadline


def test_a_deadline_in_the_past(cpu: Cpu) -> None:
    cpu.run(0)


def test_another_thread_rings_while_the_guest_runs(cpu: Cpu) -> None:
    threading.Timer(0.02, cpu.doorbell.ring).start()
    cpu.run()


def test_where_only_deadlines_stop_the_guest_a_ring_waits() -> None:
    """But it ends a sleep, and is looked at when the guest comes back by itself."""
    deadlines: list[int] = []

    class Alarm:
        stop_at = staticmethod(deadlines.append)

    doorbell = Doorbell(Alarm(), deadlines_only=True)
    doorbell.ring()
    doorbell.sleep(60)
    doorbell.enter(5)
    doorbell.ring()
    doorbell.nearer(3)
    assert deadlines == [5, 3]
    doorbell.acknowledge()


def test_a_ring_before_the_guest_is_entered_is_not_lost(cpu: Cpu) -> None:
    cpu.doorbell.ring()
    cpu.run()


def test_a_stop_that_comes_too_early_is_repeated(cpu: Cpu) -> None:
    cpu.doorbell.enter(0)
    cpu.stopped.wait()
    cpu.stopped.clear()  # it was lost
    cpu.stopped.wait()
    cpu.doorbell.acknowledge()


def test_the_guest_asks_for_a_nearer_deadline(cpu: Cpu) -> None:
    cpu.run(time.monotonic_ns() + FAR, nearer=time.monotonic_ns() + 10 * MS)


def test_a_farther_one_changes_nothing(cpu: Cpu) -> None:
    cpu.run(time.monotonic_ns() + 30 * MS, nearer=time.monotonic_ns() + FAR)


def test_a_ring_ends_the_sleep(cpu: Cpu) -> None:
    threading.Timer(0.02, cpu.doorbell.ring).start()
    cpu.doorbell.sleep(threading.TIMEOUT_MAX)


def test_a_ring_before_the_sleep_is_not_lost(cpu: Cpu) -> None:
    cpu.doorbell.ring()
    cpu.doorbell.sleep(threading.TIMEOUT_MAX)


def test_the_sleep_ends_by_itself(cpu: Cpu) -> None:
    begin = time.monotonic()
    cpu.doorbell.sleep(0.02)
    assert time.monotonic() - begin > 0.015


def test_nothing_rings_by_itself(cpu: Cpu) -> None:
    cpu.doorbell.enter(None)
    assert not cpu.stopped.wait(0.25)
    cpu.doorbell.acknowledge()


def test_closed_twice_and_rung_afterwards(cpu: Cpu) -> None:
    cpu.alarm.close()
    cpu.alarm.close()
    cpu.doorbell.ring()
    assert not cpu.alarm._thread.is_alive()


@contextmanager
def alarm_of(bare: Bare, kind: str) -> Iterator[Alarm]:
    """Have one of the two kinds."""
    if kind == "native":
        yield bare.engine.share_clock(HostClock().shared)
        return
    alarm = AlarmThread(bare.engine.stop, time.monotonic_ns)
    yield alarm
    alarm.close()


def test_the_cpu_stops_itself_at_the_deadline_and_at_no_other() -> None:
    bare, clock = Bare(), HostClock()
    clock.shared[3] = 1 << 62  # a busy host may stop this process for 50 ms, which would end a turn early
    bare.put(BASE, "loop", addi(T0, T0, 1), j("loop"))
    alarm = bare.engine.share_clock(clock.shared)
    for ms in (1, 5, 0, 20):
        deadline = clock.now() + ms * MS
        alarm.stop_at(deadline)
        bare.engine.run()
        assert clock.now() >= deadline
    assert bare[T0] > 0


def test_a_device_brings_the_deadline_nearer() -> None:
    device, clock = Recorder(), HostClock()
    bare = Bare((0x1000_0000, 0x1000, device))
    doorbell = Doorbell(bare.engine.share_clock(clock.shared))
    device.on_write = lambda: doorbell.nearer(clock.now())
    bare[S1] = 0x1000_0000
    bare.put(BASE, sw(T0, S1), "loop", addi(T0, T0, 1), j("loop"))
    doorbell.enter(clock.now() + 3_600_000 * MS)
    bare.engine.run()
    assert len(device.writes) == 1


@pytest.mark.parametrize(("kind", "rings"), [("thread", 1_000), ("native", 20_000)])
def test_of_many_rings_none_is_lost(kind: str, rings: int) -> None:
    """Each ring is answered before the next: one that was lost would hang here.

    The alarm's thread has to be woken for each: where the host has one busy core, that takes 10 ms.
    """
    bare = Bare()
    bare.put(BASE, "loop", addi(T0, T0, 1), j("loop"))
    answered, over = threading.Semaphore(0), threading.Event()
    messages: list[int] = []
    count = 0
    with alarm_of(bare, kind) as alarm:
        doorbell = Doorbell(alarm)

        def ring() -> None:
            for _ in range(rings):
                messages.append(0)
                doorbell.ring()
                answered.acquire()
            over.set()
            doorbell.ring()

        thread = threading.Thread(target=ring)
        thread.start()
        while not over.is_set():
            doorbell.enter(None)
            bare.engine.run()
            doorbell.acknowledge()
            while messages:
                messages.pop()
                count += 1
                answered.release()
        thread.join()
    assert count == rings
    assert bare[Reg.PC] in (BASE, BASE + 4)
