"""The machine: a hart, its memory and its devices, put together and run on one thread."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from devices.audio import AudioBackend, NullSink
from devices.clint import NS_PER_TICK, TIMEBASE_HZ, Clint, HartLines, ticks_from_ns
from devices.placement import Placement
from devices.plic import Plic
from devices.power import PowerRequest
from devices.rtc import GoldfishRtc
from devices.syscon import TestDevice
from devices.uart import Uart16550
from emu.clock import Clock, make_clock
from emu.console import Console
from emu.doorbell import Doorbell
from emu.engine import Engine, Reg
from emu.events import DeadlineHeap
from emu.hart import MEIP, MSIP, MTIP, SEIP, SSIP, STIP, Hart
from emu.memory import Ram
from firmware.fdt import board_tree
from firmware.image import load_initrd, load_kernel
from firmware.layout import place
from firmware.sbi import Sbi, SbiHart, SupervisorTimer

RAM_BASE = 0x8000_0000
TEST_BASE = 0x0010_0000
RTC_BASE, RTC_IRQ = 0x0010_1000, 11
CLINT_BASE = 0x0200_0000
PLIC_BASE, PLIC_SOURCES = 0x0C00_0000, 31
UART_BASE, UART_IRQ = 0x1000_0000, 10
VIRTIO_BASE, VIRTIO_STRIDE, VIRTIO_SLOTS = 0x1000_1000, 0x1000, 8
_PAGE = 0x1000


class Machine:
    def __init__(self, kernel, initrd=None, memory=256 << 20, append="console=ttyS0", clock="host", output=None):
        self.clock = make_clock(clock) if isinstance(clock, str) else clock
        self.ram = Ram(RAM_BASE, memory)
        self.engine = Engine(self.ram.buffer, RAM_BASE)
        self.events = DeadlineHeap()
        self.doorbell = Doorbell(self.engine.stop, self.clock.now)
        self.events._earlier = self.doorbell.nearer
        self.ram.changed = self.engine.invalidate
        self.hart = Hart(self.engine, self._fetch)
        self.console = Console(output)
        self.request = None
        self._inbox = deque()
        self._waiting = False
        e = self.engine
        line = lambda mask: lambda level: e.set_pending(mask, level)
        plic = Plic(PLIC_SOURCES, [line(MEIP), line(SEIP)])
        uart = Uart16550(plic.line(UART_IRQ), self.clock, self.events, self.console.print, self.console.feed)
        self.console.receive = uart.receive
        self.uart = uart
        clint = Clint(self.clock, self.events, [HartLines(line(MSIP), line(MTIP))])
        self.placements = [
            Placement(TestDevice(self._power), TEST_BASE),
            Placement(GoldfishRtc(plic.line(RTC_IRQ), self.clock, self.events), RTC_BASE, RTC_IRQ),
            Placement(clint, CLINT_BASE),
            Placement(plic, PLIC_BASE),
            Placement(uart, UART_BASE, UART_IRQ),
        ]
        for p in self.placements:
            e.map_device(p.base, -(-p.device.size // _PAGE) * _PAGE, p.device.read, p.device.write)
        e.seal()
        timer = SupervisorTimer(self.clock, self.events, line(STIP))
        self.sbi = Sbi(SbiHart(timer.set, line(SSIP), e.synchronize_code, e.flush_tlb), self.ram, self._power, self.console.print, lambda n: b"")
        self.hart.call = self._call
        e.time = lambda: clock_now() // NS_PER_TICK
        clock_now = self.clock.now
        k = load_kernel(Path(kernel))
        i = load_initrd(Path(initrd)) if initrd else b""
        ram = range(RAM_BASE, RAM_BASE + memory)
        lay = place(ram, k, len(i))
        self.ram.view(lay.kernel, len(k.data))[:] = k.data
        if i: self.ram.view(lay.initrd.start, len(i))[:] = i
        dtb = board_tree(self.placements, ram=ram, timebase=TIMEBASE_HZ, isa="rv64imafdc", bootargs=append, initrd=lay.initrd, rng_seed=os.urandom(32))
        self.dtb = dtb
        self.ram.view(lay.dtb, len(dtb))[:] = dtb
        self.hart.start_supervisor(lay.kernel, lay.dtb)

    def _call(self, state):
        error, value = self.sbi.call(state[17], state[16], (state[10], state[11], state[12], state[13], state[14]))
        state[10] = error & (1<<64)-1
        if value is not None:
            state[11] = value & (1<<64)-1

    def _power(self, request):
        self.request = request
        self.engine.stop()

    def _fetch(self, address):
        pa = self.engine.translate(address, 2)
        return self.ram.read(pa, 2) if pa is not None else None

    def run_until(self, done):
        while self.request is None and not done():
            self.step()

    def step(self):
        self.events.run_due(self.clock.now())
        while self._inbox: self._inbox.popleft()()
        deadline = self.events.next_deadline()
        if self._waiting and not self.hart.wakes():
            self.clock.wait(deadline, self.doorbell.sleep)
            self.doorbell.acknowledge()
        else:
            self.doorbell.enter(deadline)
            self._waiting = self.engine.run()
            self.doorbell.acknowledge()
        self.console.flush()
