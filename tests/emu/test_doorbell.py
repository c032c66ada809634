import threading
import time
from collections.abc import Iterator

import pytest

from emu.doorbell import Doorbell
from emu.engine import Reg
from tests.emu.asm import T0, addi, j
from tests.emu.bare import BASE, Bare

MS = 1_000_000


class Cpu:
    """Something that runs until it is stopped, as the engine does; a stop while it does not run is lost."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.doorbell = Doorbell(self.stopped.set, time.monotonic_ns)

    def run(self, deadline: int | None = None) -> float:
        """Run; say how long, in seconds."""
        begin = time.monotonic()
        self.stopped.clear()
        self.doorbell.enter(deadline)
        assert self.stopped.wait(5)
        self.doorbell.acknowledge()
        return time.monotonic() - begin


@pytest.fixture
def cpu() -> Iterator[Cpu]:
    cpu = Cpu()
    yield cpu
    cpu.doorbell.close()


def test_it_rings_at_the_deadline(cpu: Cpu) -> None:
    assert 0.02 <= cpu.run(time.monotonic_ns() + 20 * MS) < 1


def test_a_deadline_in_the_past(cpu: Cpu) -> None:
    assert cpu.run(0) < 1


def test_another_thread_rings_while_the_guest_runs(cpu: Cpu) -> None:
    threading.Timer(0.02, cpu.doorbell.ring).start()
    assert cpu.run() < 1


def test_a_ring_before_the_guest_is_entered_is_not_lost(cpu: Cpu) -> None:
    cpu.doorbell.ring()
    assert cpu.run() < 1


def test_a_stop_that_comes_too_early_is_repeated(cpu: Cpu) -> None:
    cpu.doorbell.enter(0)
    assert cpu.stopped.wait(5)
    cpu.stopped.clear()  # it was lost
    assert cpu.stopped.wait(5)
    cpu.doorbell.acknowledge()


def test_the_guest_asks_for_a_nearer_deadline(cpu: Cpu) -> None:
    threading.Timer(0.01, cpu.doorbell.nearer, [time.monotonic_ns()]).start()
    assert cpu.run(time.monotonic_ns() + 3000 * MS) < 1


def test_a_farther_one_changes_nothing(cpu: Cpu) -> None:
    threading.Timer(0.005, cpu.doorbell.nearer, [time.monotonic_ns() + 3000 * MS]).start()
    assert cpu.run(time.monotonic_ns() + 30 * MS) < 1


def test_a_ring_ends_the_sleep(cpu: Cpu) -> None:
    threading.Timer(0.02, cpu.doorbell.ring).start()
    begin = time.monotonic()
    cpu.doorbell.sleep(5)
    assert time.monotonic() - begin < 1


def test_a_ring_before_the_sleep_is_not_lost(cpu: Cpu) -> None:
    cpu.doorbell.ring()
    begin = time.monotonic()
    cpu.doorbell.sleep(5)
    assert time.monotonic() - begin < 1


def test_the_sleep_ends_by_itself(cpu: Cpu) -> None:
    begin = time.monotonic()
    cpu.doorbell.sleep(0.02)
    assert 0.015 < time.monotonic() - begin < 1


def test_nothing_rings_by_itself(cpu: Cpu) -> None:
    cpu.doorbell.enter(None)
    assert not cpu.stopped.wait(0.25)
    cpu.doorbell.acknowledge()


def test_closed_twice_and_rung_afterwards(cpu: Cpu) -> None:
    cpu.doorbell.close()
    cpu.doorbell.close()
    cpu.doorbell.ring()
    assert not cpu.doorbell._thread.is_alive()


def test_twenty_thousand_rings_none_lost() -> None:
    """Each ring is answered before the next: one that was lost would hang here."""
    bare = Bare()
    bare.put(BASE, "loop", addi(T0, T0, 1), j("loop"))
    doorbell = Doorbell(bare.engine.stop, time.monotonic_ns)
    answered, over, rings = threading.Semaphore(0), threading.Event(), 20_000

    def ring() -> None:
        for _ in range(rings):
            messages.append(0)
            doorbell.ring()
            if not answered.acquire(timeout=10):
                break
        over.set()
        doorbell.ring()

    messages: list[int] = []
    thread = threading.Thread(target=ring)
    thread.start()
    count = 0
    while not over.is_set():
        doorbell.enter(None)
        bare.engine.run()
        doorbell.acknowledge()
        while messages:
            messages.pop()
            count += 1
            answered.release()
    thread.join()
    doorbell.close()
    assert count == rings
    assert bare[Reg.PC] in (BASE, BASE + 4)
