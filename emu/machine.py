"""The machine: a hart, its memory and its devices, put together."""

import atexit
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from devices.audio import AudioBackend
from devices.audio.patchbay import Patchbay
from devices.clint import ticks_from_ns
from devices.errors import UsageError
from devices.power import PowerAction, PowerRequest
from devices.stimer import SupervisorTimer
from devices.virtio.aside import Aside, at_once
from devices.virtio.console import ConsoleDevice
from devices.virtio.device import VirtioDevice
from devices.virtio.rng import EntropyDevice
from devices.virtio.sound import SoundDevice
from emu import arguments
from emu.arguments import Origin
from emu.board import RAM_BASE, Board, Lines, build_board
from emu.console import Console
from emu.cpu.engine import Engine
from emu.cpu.hart import MEIP, MSIP, MTIP, SEIP, SSIP, STIP, Hart
from emu.jitter import Jitter, shifts_timing
from emu.joints import Joints
from emu.memory import Ram
from emu.options import last_console
from emu.panic import PanicWatch
from emu.timing.calendar import Calendar
from emu.timing.clock import Clock, HostClock
from emu.timing.loop import Loop
from emu.timing.warp import WarpClock
from firmware import boot
from firmware.sbi import Sbi, SbiHart

if TYPE_CHECKING:
    from devices.contracts import Event, Events, Moment
    from devices.net import NetBackend
    from devices.virtio.disk import Disk
    from devices.virtio.fs import Export
    from devices.virtio.net import NetDevice
    from emu.counters import Counters
    from emu.debug.debugger import Debugger
    from emu.monitor import Monitor
    from emu.recording import Reader, Recorder, Replayer, Writer
    from emu.shell import Shell
    from emu.snapshot.snapshot import Body, Made, Snapshot
    from emu.trace import Trace

__all__ = ["Machine"]

_PAGE = 4096
#: The console's sense of soon (guest time): when what was printed is shown at the latest.
_LATER_NS = 5_000_000


class Machine:
    """A RISC-V machine, switched on.

    ``kernel``, ``initrd`` and ``bios`` are files; without a kernel it is the default guest's, with its root file
    system unless ``initrd`` is another, and they are built if this is their first use (minutes). A ``bios`` without a
    kernel is all that runs, in M mode. A ``kernel`` that is a snapshot, or its file, makes a machine that goes on from
    there, with its RAM, command line and disks. ``memory`` is a size ("256M" or bytes); ``append`` the kernel's line,
    all of it, whose last ``console=`` (ttyS0 or hvc0) gets what is typed;
    ``disk`` and ``disks`` opened disks or texts like "disk.img,snapshot", the guest's vda, vdb ... (13 at most);
    ``share`` and ``shares`` texts like "directory,readonly", which the default guest has at /mnt (only the first);
    ``net`` and ``nets`` what the guest's eth0, eth1 ... are plugged into: texts like "user", or backends like a Wire;
    ``audio`` a backend, or a text like "wav:out.wav" (default: played nowhere, in time); ``clock`` "host", "warp" or a
    clock; ``output`` gets what the guest prints; ``trace`` is a Trace of what happens. ``seed`` is where random bytes
    and the calendar's time at power-on come from: of the host, unless there is one; with the warp clock it is 0 unless
    it is another, and a run that gets the same input is the same to the bit; each other seed has a timing of its own.

    ``record`` is a file that keeps this run, and ``replay`` one that is to be repeated by a machine of the same files
    and options (``run`` it: what it gets from outside comes from the file). Both need the warp clock.

    Use it as a context manager: at the end everything is flushed and closed, the disks and the audio backend included
    (but with ``close_audio=False`` the next machine can play on in the latter).

        with Machine(audio="wav:out.wav", clock="warp") as machine:
            status, output = machine.console.run("aplay -D hw:0,0 /root/tone.wav")
            print(status, machine.audio.frames.shape)

    The guest runs only while a method waits for it: ``console.run`` and ``console.expect``, ``run``, ``run_for`` and
    ``run_until``. One thread, the one that calls its methods, owns the machine; from others, only ``post`` may be
    used.

    Raises UsageError for files and sizes that can't work; while it runs MachineError when the guest's kernel panics
    or its hart cannot go on.
    """

    #: What the guest asked of the power switch; the machine doesn't run any more then.
    power: PowerRequest | None = None
    _open = False
    _monitor: "Monitor | None" = None
    _debugger: "Debugger | None" = None

    def __init__(
        self,
        kernel: "str | os.PathLike[str] | Snapshot | None" = None,
        initrd: str | os.PathLike[str] | None = None,
        *,
        bios: str | os.PathLike[str] | None = None,
        memory: str | int | None = None,
        append: str | None = None,
        disk: "Disk | str | None" = None,
        disks: "Sequence[Disk | str]" = (),
        share: "Export | str | None" = None,
        shares: "Sequence[Export | str]" = (),
        net: "NetBackend | str | None" = None,
        nets: "Sequence[NetBackend | str]" = (),
        audio: AudioBackend | str | None = None,
        clock: Clock | str = "host",
        output: Callable[[bytes], None] | None = None,
        close_audio: bool = True,
        trace: "Trace | None" = None,
        seed: int | None = None,
        record: "str | os.PathLike[str] | Writer | None" = None,
        replay: "str | os.PathLike[str] | Reader | None" = None,
    ) -> None:
        self._closing = ExitStack()  # closes what was opened, the newest first, whatever happens to the others
        arguments.check(
            kernel=kernel, initrd=initrd, bios=bios, append=append, audio=audio, clock=clock, trace=trace, seed=seed,
            record=record, replay=replay,
        )  # fmt: skip
        origin = arguments.origin(kernel, initrd, bios, memory, append)
        #: Guest time; and what differs from run to run.
        self.clock, self.chance = arguments.time_and_chance(clock, seed, origin.seed)
        self._joints = joints = Joints() if trace is None else trace.joints(self.clock)
        #: The kernel's command line.
        self.append = origin.append
        self._ram = ram = Ram(RAM_BASE, origin.memory, origin.ram)
        self.disks: list[Disk] = []
        self._switched_on = time.monotonic_ns()
        with ExitStack() as opened:
            #: What records this run, or replays another.
            self.journal: Recorder | Replayer | None = arguments.open_journal(record, replay, self.clock, opened)
            outside = Joints() if self.journal is None else self.journal
            #: What is played and recorded: the backend, and Python's access to it.
            self.audio = Patchbay(arguments.open_audio(audio, real_time=not isinstance(self.clock, WarpClock)))
            if close_audio:
                opened.callback(self.audio.close)
            for one in arguments.open_disks(disks if disk is None else (disk, *disks), origin.snapshot):
                self.disks.append(one)
                opened.callback(one.close)
            self.console: Console = Console(self.run_until, output, self._later, self._make_shell, self.check_thread)
            opened.callback(self.console.close)
            self._engine = engine = Engine(ram.buffer, ram.base)
            opened.callback(engine.close)
            ram.changed = engine.invalidate
            self.hart = Hart(engine)
            self.hart.watch(joints.exceptions)
            self._panics = PanicWatch(engine, self.hart, self.clock, self.console, origin.initrd)
            engine.time = _ticks_of(self.clock)  # which Loop may let the native part tell
            run, wait = outside.run(joints.run(engine.run)), outside.wait(joints.wait(self.clock.wait))
            self._loop = Loop(engine, self.hart, self.clock, run=run, wait=wait, look=outside.look(self._look))
            opened.callback(self._loop.close)
            #: ``events.at(ns, action)`` has something done at a guest time.
            self.events: Events = self._loop.events
            outputs, inputs = self.audio.streams
            self.sound: SoundDevice = SoundDevice(
                self.clock, self.events, joints.audio(outside.audio(self.audio)), outputs=outputs, inputs=inputs
            )
            #: hvc0; ``hvc.resize(columns, rows)`` tells the guest the size of the window that it is shown in.
            self.hvc: ConsoleDevice = ConsoleDevice(self.console.print, self.clock, self.events)
            blocks = [self._make_block_device(number, opened) for number in range(len(self.disks))]
            entropy = EntropyDevice(partial(self.chance.draw, "entropy"))
            self.virtio: list[VirtioDevice] = [*blocks, self.sound, entropy, self.hvc]
            self._share(shares if share is None else (share, *shares), opened)
            self._plug_in(nets if net is None else (net, *nets), opened)
            board = self._build_board(ram, joints)
            self.console.connect(board.uart)
            if last_console(self.append).startswith("hvc"):
                self.console.type_on(self.hvc)
            self.plic, self.placements = board.plic, board.placements
            start, self.dtb = self._load(origin, ram, board)
            self._timer = self._begin(start, ram, joints)
            if origin.snapshot is not None:
                self._become(origin.snapshot)
            self._begin_journal(ram.size, origin, opened)
            self._closing = opened.pop_all()
        self._keep_until_closed()

    # ---------------------------------------------------------------- running

    def run(self) -> PowerRequest:
        """Run until the guest switches the machine off or resets it."""
        self.run_until(lambda: False)
        assert self.power is not None
        return self.power

    def run_for(self, seconds: float) -> None:
        """Run for so much guest time, or until the guest switches the machine off."""
        done: list[bool] = []
        event = self.events.at(self.clock.now() + round(seconds * 1e9), lambda: done.append(True))
        self.run_until(lambda: bool(done))
        event.cancel()

    def run_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Run until ``done()``, which is asked whenever the CPU is back, and say whether it came to that.

        It doesn't when the guest switches the machine off, or after ``timeout`` seconds of real time, whatever the
        guest does. Raises UsageError if the machine is paused: the guest would do nothing, for ever.
        """
        if self.paused and timeout is None and self._debugger is None:
            raise UsageError("the machine is paused; resume it first")
        try:
            return self._loop.run_until(done, timeout)
        except BaseException:
            self.console.flush()  # what it printed comes before what is said about its end
            raise

    def post(self, message: Callable[[], None]) -> None:
        """Have ``message()`` called on the machine's thread, soon. For any thread, and for signal handlers."""
        self._loop.post(message)

    def check_thread(self) -> None:
        """Raise UsageError if another thread runs the machine."""
        self._loop.check_thread()

    # ---------------------------------------------------------------- for people

    @property
    def paused(self) -> bool:
        """Whether guest time stands still; see ``pause``."""
        return self._loop.paused

    def pause(self) -> None:
        """Have guest time stand still, and the guest with it, until ``resume``. Messages are still taken."""
        self._loop.check_thread()
        self._loop.paused = True
        self.clock.pause()

    def resume(self) -> None:
        """Go on where it was: for the guest, no time has passed. Raises UsageError if a debugger has it stand."""
        self._loop.check_thread()
        if self._debugger is not None:
            self._debugger.check_stands_not()
        if self.paused:
            self._loop.paused = False
            self.clock.resume()

    def gdb(self, port: int = 0, host: str = "127.0.0.1", *, wait: bool = False) -> int:
        """Let gdb connect, to ``port`` (0: one that is free) of ``host``; return the port.

            gdb-multiarch vmlinux -ex "target remote :1234"

        While gdb has the machine stand, guest time and sound stand. With ``wait``, it stands until gdb says otherwise.
        With the warp clock gdb can go backwards. Raises UsageError if the port cannot be had.
        """
        self._loop.check_open()
        self._loop.check_thread()
        if self._debugger is None:
            from emu.debug.debugger import Debugger  # noqa: PLC0415 - not needed to boot

            self._debugger = Debugger(self, (self._engine, self._loop, self._ram), (host, port), wait=wait)
            self._closing.callback(self._debugger.close)
        return self._debugger.port

    def switch_off(self) -> None:
        """Take the power away: the machine doesn't run any more, whatever the guest was doing."""
        self._switch(PowerRequest(PowerAction.OFF))

    def monitor(self, line: str) -> str:
        """Do what ``line`` says at the monitor's prompt (C-a c in a terminal), and return what it shows.

            print(machine.monitor("info irqs"))
            machine.monitor("jack mic unplug")

        ``help`` lists the commands. Raises UsageError for what isn't one, or can't be done.
        """
        self._loop.check_open()
        self._loop.check_thread()
        if self._monitor is None:
            from emu.monitor import Monitor  # noqa: PLC0415 - not needed to boot

            self._monitor = Monitor(self)
            self._closing.callback(self._monitor.close)
        return self._monitor.execute(line)

    def put(self, source: str | os.PathLike[str] | bytes, path: str, timeout: float = 60.0) -> None:
        """Write a file of the host, or bytes, to the file ``path`` of the guest.

            machine.put("build/driver.ko", "/root/driver.ko")

        That is typed at its shell (see ``console.run``), some 50 kB a second: for more, ``share`` a directory. What is
        there is replaced when all of the new one has arrived. Raises UsageError, or ShellError with what the guest
        said, or where a step takes more than ``timeout`` seconds of real time.
        """
        from emu.transfer import put  # noqa: PLC0415 - not needed to boot

        put(self.console, source, path, timeout)

    def get(self, path: str, timeout: float = 60.0) -> bytes:
        """Read the file ``path`` of the guest, as ``put`` writes one."""
        from emu.transfer import get  # noqa: PLC0415 - not needed to boot

        return get(self.console, path, timeout)

    @property
    def counters(self) -> "Counters":
        """What has happened since power-on, in numbers: a snapshot."""
        from emu.counters import count  # noqa: PLC0415 - not needed to boot

        return count(self, time.monotonic_ns() - self._switched_on)

    # ---------------------------------------------------------------- snapshots

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what the machine is now to the file ``path``, for ``Machine(path)`` to go on from there.

        Call it while the machine does not run, or from a message: see ``post``. An older snapshot there is replaced
        once the new one is whole. Raises UsageError if that cannot be done.
        """
        from emu.snapshot.snapshot import save  # noqa: PLC0415 - not needed to boot

        self._check_can_be_saved()
        save(Path(path), self._made(), self._body())

    def snapshot(self) -> "Snapshot":
        """Return what the machine is now, for ``restore`` and for ``Machine``. Call it when ``save`` may be called."""
        from emu.snapshot.snapshot import Snapshot  # noqa: PLC0415 - not needed to boot

        self._check_can_be_saved()
        return Snapshot.take(self._made(), self._body())

    def restore(self, snapshot: "Snapshot") -> None:
        """Go back to what the machine was, even if it was switched off since; or become what another one was.

        That one must have the same memory, firmware, disks and streams of sound. Files that sound is written to stay
        as they are and go on from here; with ``wav:OUT.wav,continue`` they go back, too, or on from that one's. Call it
        when ``save`` may be called. Raises UsageError.
        """
        self._check_between_steps()
        if self.journal is not None:
            raise UsageError("a run that is recorded or replayed cannot go back")
        self._become(snapshot)

    def _check_can_be_saved(self) -> None:
        self._check_between_steps()
        if self.power is not None:
            raise UsageError("the machine is switched off, and not worth saving")

    def _check_between_steps(self) -> None:
        self._loop.check_open()
        self._loop.check_thread()
        if self._loop.stepping or self._loop.suspended:
            raise UsageError("a machine cannot be saved or restored in the middle of a step; post a message that does")

    def _made(self) -> "Made":
        return {
            "memory": self._ram.size,
            "append": self.append,
            "bios": self._has_bios,
            "dtb": self.dtb,
            "seed": None if self.chance.seed is None else str(self.chance.seed),
            "calendar": self._calendar.began,
            "streams": self.audio.streams,
            "shares": [device.export.tag for device in self.virtio if hasattr(device, "export")],
            "cards": len(self.cards),
        }

    def _body(self) -> "Body":
        """Return the parts that are saved, in the order in which they are restored, and the RAM."""
        from emu.snapshot.snapshot import Body  # noqa: PLC0415 - not needed to boot

        board = {f"{one.device.node_name} {one.base:#x}": one.device for one in self.placements}
        devices = {f"device {slot}": device for slot, device in enumerate(self.virtio)}
        parts: dict[str, Any] = {
            "events": self._loop.events, "chance": self.chance, "hart": self.hart, "clock": self.clock,
            "loop": self._loop, "supervisor timer": self._timer, **board, **devices, "jitter": self._jitter,
            "console": self.console,
        }  # fmt: skip
        return Body({name: part for name, part in parts.items() if hasattr(part, "state")}, self._ram, self.disks)

    def _become(self, snapshot: "Snapshot") -> None:
        """Be what ``snapshot`` is."""
        snapshot.check_fits(self._made())
        self.power = None
        self._panics.forget()
        self._engine.changed(self._ram.go_back(snapshot.ram, self._engine.code_pages()))
        try:
            with self._joints.muted():
                snapshot.restore(self._body(), same_seed=snapshot.seed == self.chance.seed)
        except BaseException:
            self._loop.halt()  # it is neither the one nor the other
            raise
        self._calendar.go_back(snapshot.made["calendar"])

    # ---------------------------------------------------------------- between the steps

    def _look(self) -> None:
        self.console.flush()
        if self.console.panic is not None:
            self._panics.look(waiting=self._loop.waiting)

    def _later(self, action: Callable[[], None], moment: "Moment | None" = None) -> "Event":
        events = self._loop.events
        return events.at(self.clock.now() + _LATER_NS, action) if moment is None else events.resume(moment, action)

    def _make_shell(self, word: str | None) -> "Shell":
        from emu.shell import Shell  # noqa: PLC0415 - not needed to boot

        return Shell(self, "console.run", word)

    # ---------------------------------------------------------------- wiring

    def _make_block_device(self, number: int, opened: ExitStack) -> VirtioDevice:
        from devices.virtio.blk import BlockDevice  # noqa: PLC0415 - not needed to boot

        aside = self._make_aside(opened)
        fetch = None if aside is at_once else self._make_aside(opened)  # which need not wait for a flush
        return BlockDevice(self.disks[number], f"pyemu-disk{number}", aside, fetch)

    def _make_aside(self, opened: ExitStack) -> Aside:
        """By the host's clock, the guest goes on while the host's disk is busy; by others, that takes no time."""
        if type(self.clock) is not HostClock:  # warp time is none
            return at_once
        from emu.timing.aside import AsideThread  # noqa: PLC0415 - not needed to boot

        thread = AsideThread(self.post)
        opened.callback(thread.close)
        return thread

    def _share(self, shares: "Sequence[Export | str]", opened: ExitStack) -> None:
        if shares:
            from emu.shares import devices  # noqa: PLC0415 - not needed to boot

            self.virtio += devices(shares, self._make_aside, opened, recorded=self.journal is not None)

    def _plug_in(self, nets: "Sequence[NetBackend | str]", opened: ExitStack) -> None:
        #: The network cards, the guest's eth0, eth1 ...
        self.cards: list[NetDevice] = arguments.open_cards(nets, self, opened)
        self.virtio += self.cards

    def _build_board(self, ram: Ram, joints: Joints) -> Board:
        msip, mtip, meip, seip = map(self._engine.line, (MSIP, MTIP, MEIP, SEIP))
        shifts = shifts_timing(self.clock, self.chance)
        self._jitter = jitter = Jitter(self.chance, self.clock, self.events) if shifts else Joints()
        right = self.chance.seed is None and isinstance(self.clock, HostClock)
        self._calendar = Calendar(self.clock.now, None if right else self.chance.wall_time() - self.clock.now())
        board = build_board(
            lines=Lines(msip, joints.timer(mtip), meip, seip),
            clock=self.clock,
            events=self.events,
            memory=ram,
            power=self._switch,
            virtio=[jitter.virtio(slot, joints.virtio(slot, device)) for slot, device in enumerate(self.virtio)],
            print_=self.console.print,
            watch=lambda source, name, line: joints.irq(source, name, jitter.irq(source, name, line)),
            wall=self._calendar.time,
        )
        for placement in board.placements:
            size = -(-placement.device.size // _PAGE) * _PAGE
            self._engine.map_device(placement.base, size, *joints.registers(placement))
        return board

    def _load(self, origin: Origin, ram: Ram, board: Board) -> tuple[boot.Boot, bytes]:
        """Put the software into RAM, unless it is there; return where to begin, and the device tree."""
        if origin.snapshot is not None:
            made = origin.snapshot.made
            return boot.Boot(made["bios"], 0, 0, 0), made["dtb"]
        paths = {name: None if file is None else Path(file) for name, file in origin.files.items()}
        with arguments.blaming_the_cache(origin.kernel, origin.initrd):
            return boot.load(
                ram.room,
                range(ram.base, ram.base + ram.size),
                board.placements,
                bootargs=origin.append,
                rng_seed=self.chance.draw("device tree", 32),
                **paths,
            )

    def _begin(self, start: boot.Boot, ram: Ram, joints: Joints) -> SupervisorTimer:
        timer = SupervisorTimer(self.clock, self.events, joints.timer(self._engine.line(STIP)))
        if start.machine_mode:
            self.hart.start_machine(start.pc, start.dtb, start.dynamic_info, timer.set)
        else:
            hart = SbiHart(timer.set, self._engine.line(SSIP), self._engine.synchronize_code, self._engine.flush_tlb)
            sbi = Sbi(hart, ram, self._switch, self.console.print, self.console.take)
            self.hart.start_supervisor(start.pc, start.dtb, joints.calls(sbi.call))
        self._has_bios = start.machine_mode
        return timer

    def _begin_journal(self, memory: int, origin: Origin, opened: ExitStack) -> None:
        if self.journal is not None:
            snapshot = None if origin.snapshot is None else origin.snapshot.identity()
            self.journal.begin(self, memory, origin.files, snapshot)
            opened.callback(self.journal.end)

    def _switch(self, request: PowerRequest) -> None:
        self.power = self.power or request
        self._loop.halt()

    # ---------------------------------------------------------------- the end

    def close(self) -> None:
        """Flush and close everything.

        Raises UsageError while the machine runs, on another thread or this one; PyemuError if a disk loses data by
        being closed.
        """
        self._loop.close()
        self._open = False
        atexit.unregister(self._at_exit)
        self._closing.close()

    def _keep_until_closed(self) -> None:
        """Have it closed at the latest before the interpreter ends, while its threads still run."""
        self._open = True
        self._at_exit = partial(_close_forgotten, ref(self))
        atexit.register(self._at_exit)

    def __del__(self) -> None:
        if self._open:
            message = "a Machine was not closed; use a with statement, or close()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _close_forgotten(machine: "ref[Machine]") -> None:
    forgotten = machine()
    if forgotten is not None:
        forgotten.close()


def _ticks_of(clock: Clock) -> Callable[[], int]:
    """Return what reads the ``time`` CSR."""
    now = clock.now
    return lambda: ticks_from_ns(now())
