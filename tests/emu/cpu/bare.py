"""A board for tests of the hart: real engine, hart and RAM, and what devices a test maps; no kernel, no firmware.

A test is a few instructions that end with ``wfi``. They run in M mode, or in the mode that ``run`` is told.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emu.cpu.engine import Engine, Reg
from emu.cpu.hart import Hart
from emu.memory import Ram
from emu.timing.clock import HostClock
from tests.emu.asm import A0, Item, assemble, csrr, wfi

__all__ = [
    "BASE", "HANDLER", "MACHINE", "PAGE", "RAM_END", "SUPERVISOR", "USER", "Bare", "Mapped", "Recorder", "stopping",
]  # fmt: skip

BASE = 0x8000_0000
RAM_SIZE = 16 << 20
RAM_END = BASE + RAM_SIZE
#: Where the handler is that ends a test at its first trap, see Bare.trap.
HANDLER = BASE + 0x1_0000
PAGE = 4096
USER, SUPERVISOR, MACHINE = 0, 1, 3
#: Longer than any test runs, however busy the host; a hang of the guest then fails the test instead of hanging pytest,
#: too, whose own timeout cannot end it.
_WATCHDOG_S = 250.0


class Recorder:
    """An MMIO device that notes all accesses and answers loads with ``value``; ``on_write`` is called after a store."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int, int]] = []
        self.value = 0
        self.on_write: Callable[[], None] = lambda: None

    def read(self, offset: int, size: int) -> int:
        self.reads.append((offset, size))
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))
        self.on_write()


#: A device in its place: base, size, device.
Mapped = tuple[int, int, Recorder]


class Bare:
    """Engine, hart and RAM. ``bare[A0]`` is a register of the hart."""

    def __init__(self, *devices: Mapped) -> None:
        self.ram = Ram(BASE, RAM_SIZE)
        self.engine = Engine(self.ram.buffer, BASE)
        self.ram.changed = self.engine.invalidate
        self.hart = Hart(self.engine)
        for base, size, device in devices:
            self.engine.map_device(base, size, device.read, device.write)
        self.state = self.engine.state
        self.hart.start_machine(BASE, 0, 0)

    # ---------------------------------------------------------------- programs and data

    def put(self, address: int, *items: Item) -> None:
        """Put code there."""
        self.ram.write(address, assemble(address, *items))

    def put_word(self, address: int, value: int) -> None:
        """Put 8 bytes there."""
        self.ram.write(address, value.to_bytes(8, "little"))

    def word(self, address: int, size: int = 8) -> int:
        """Read them back."""
        return int.from_bytes(self.ram.read(address, size), "little")

    def __getitem__(self, register: int) -> int:
        return self.state[register]

    def __setitem__(self, register: int, value: int) -> None:
        self.state[register] = value

    # ---------------------------------------------------------------- running

    def run(self, *items: Item, mode: int = MACHINE, at: int = BASE) -> "Bare":
        """Run ``items`` (or what is there) in ``mode`` until they execute wfi."""
        if items:
            self.put(at, *items)
        self[Reg.PRIV], self[Reg.PC] = mode, at
        return self.go()

    def go(self) -> "Bare":
        """Run on from the pc until wfi."""
        over, expired = threading.Event(), threading.Event()

        def watch() -> None:
            if not over.wait(_WATCHDOG_S):
                expired.set()
            while expired.is_set() and not over.wait(0.001):
                self.engine.stop()

        watchdog = threading.Thread(target=watch, daemon=True)
        watchdog.start()
        try:
            while not self.engine.run():
                assert not expired.is_set(), f"the guest does not come to its wfi; pc {self[Reg.PC]:#x}"
        finally:
            over.set()
            watchdog.join()
        return self

    def trap(self, *items: Item, mode: int = MACHINE, at: int = BASE) -> tuple[int, int, int]:
        """Run ``items`` until they trap to M mode: (mcause, mepc, mtval)."""
        self.put(HANDLER, wfi())
        self[Reg.MTVEC] = HANDLER
        self.run(*items, mode=mode, at=at)
        assert self[Reg.PC] == HANDLER + 4, f"no trap; pc {self[Reg.PC]:#x}"
        return self[Reg.MCAUSE], self[Reg.MEPC], self[Reg.MTVAL]

    def csr(self, number: int) -> int:
        """Read a CSR as M-mode code does."""
        before = self.state.tobytes()
        value = self.run(csrr(A0, number), wfi(), at=RAM_END - PAGE)[A0]
        self.state.cast("B")[:] = before
        return value

    def allow_all(self) -> "Bare":
        """Let S and U mode use the counters and the floating-point unit, as firmware and kernel do."""
        self[Reg.MCOUNTEREN] = self[Reg.SCOUNTEREN] = 7
        return self


@contextmanager
def stopping(engine: Engine) -> Iterator[None]:
    """Have the CPU stop itself all the time, with its native part; else another thread stops it every 0.3 ms."""
    clock = HostClock()
    alarm = engine.share_clock(clock.shared)
    if alarm is not None:
        alarm.stop_at(0)
        yield
        alarm.stop_at(1 << 62)
        return
    done = threading.Event()

    def stop() -> None:
        while not done.wait(0.0003):
            engine.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
