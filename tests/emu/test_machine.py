"""The machine with kernels of a few instructions: power, console, time, messages, and the end."""

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.audio import NullSink
from devices.errors import MachineError, UsageError
from devices.power import PowerAction, PowerRequest
from emu import guest
from emu.console import ExpectError
from emu.cpu.native import SWITCH
from emu.cpu.sstc import MENVCFG, STIMECMP
from emu.jitter import Jitter
from emu.machine import Machine
from emu.timing.clock import SLOWEST_PS_PER_BLOCK, HostClock, ManualClock
from emu.timing.warp import PS_PER_BLOCK, WarpClock
from tests.emu.asm import (
    A0,
    A1,
    A2,
    A6,
    A7,
    S0,
    S1,
    S2,
    T0,
    T1,
    T2,
    ZERO,
    Csr,
    Item,
    add,
    addi,
    assemble,
    bltu,
    bne,
    csrr,
    csrsi,
    csrw,
    ecall,
    j,
    la,
    li,
    lw,
    rdtime,
    sw,
    wfi,
)  # fmt: skip
from tests.emu.tiny import ECHO, FAIL, POWER_OFF, RESET, SPIN, TRAP, WAIT, panic, say, write_image
from tests.left import leaves_nothing, threads

BASE = 0x8000_0000
TIME, SRST, DBCN = 0x54494D45, 0x53525354, 0x4442434E
Make = Callable[..., Machine]
STI = 1 << 5
TICKS_PER_MS = 10_000
MS = 1_000_000  # ns
ROOT = Path(__file__).parents[2]


def sbi(extension: int, function: int = 0, *arguments: int) -> list[Item]:
    registers = (A0, A1, A2)
    values = [li(register, value) for register, value in zip(registers, arguments, strict=False)]
    return [values, li(A7, extension), li(A6, function), ecall()]


def sleep(ticks: int) -> list[Item]:
    """Set the timer, wait, and switch it off."""
    return [
        li(T0, STI), csrw(Csr.SIE, T0), rdtime(A0), li(T1, ticks), add(A0, A0, T1),
        li(A7, TIME), li(A6, 0), ecall(), wfi(),
    ]  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Make:
    def machine(*code: Item, **options: object) -> Machine:
        machine = Machine(write_image(tmp_path / "Image", *code), memory="32M", **options)  # type: ignore[arg-type]
        request.addfinalizer(machine.close)
        return machine

    return machine


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(
    ("code", "action", "failure"),
    [
        (POWER_OFF, PowerAction.OFF, 0),
        (RESET, PowerAction.RESET, 0),
        (FAIL, PowerAction.FAIL, 1),
        (sbi(SRST, 0, 0, 0), PowerAction.OFF, 0),
        (sbi(SRST, 0, 1, 0), PowerAction.RESET, 0),
        (sbi(8), PowerAction.OFF, 0),
    ],
)
def test_the_guest_switches_off(make: Make, code: list[Item], action: PowerAction, failure: int) -> None:
    machine = make(code, SPIN)
    assert machine.run() == PowerRequest(action, failure)
    assert machine.power == PowerRequest(action, failure)
    assert not machine.run_until(lambda: False)


def test_nothing_runs_after_power_off(make: Make) -> None:
    machine = make(POWER_OFF[:-1], j(0), say("x"), SPIN)
    machine.run()
    assert bytes(machine.console.text) == b""


# ---------------------------------------------------------------- console


def test_output_by_the_uart_and_by_the_firmware(make: Make) -> None:
    out = bytearray()
    program = [
        say("uart "),
        sbi(1, 0, ord("!")),
        sbi(DBCN, 2, ord("?")),
        la(A1, "text"),
        li(T0, 0x8020_0000 - 64),
        li(A0, 4),
        li(A2, 0),
    ]
    machine = make(
        program, li(A7, DBCN), li(A6, 0), ecall(), POWER_OFF, "text", int.from_bytes(b"dbcn", "little"),
        output=out.extend,
    )  # fmt: skip
    machine.run()
    assert bytes(out) == b"uart !?dbcn"


def test_what_is_typed_arrives_whole(make: Make) -> None:
    machine = make(ECHO)
    text = bytes(range(32, 127)) * 20
    machine.console.send(text)
    machine.console.expect(text)
    machine.console.send(b"\x04")
    assert machine.run().action is PowerAction.OFF
    assert bytes(machine.console.text) == text


def test_expect_without_success(make: Make) -> None:
    machine = make(say("hello"), POWER_OFF)
    with pytest.raises(ExpectError, match="did not print 'goodbye', but: 'hello'"):
        machine.console.expect("goodbye")


def test_a_kernel_that_panics(make: Make) -> None:
    machine = make(panic("no init"))
    with pytest.raises(MachineError, match="panicked: no init"):
        machine.run()


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("clock", ["warp", "manual"])
def test_waiting_takes_no_real_time(make: Make, clock: str) -> None:
    machine = make(WAIT, clock=ManualClock() if clock == "manual" else clock)
    machine.run_for(3600)  # which pytest would not wait for
    assert 3600e9 <= machine.clock.now() < 3601e9


def test_the_guest_sleeps_until_its_timer(make: Make) -> None:
    machine = make(sleep(50 * TICKS_PER_MS), POWER_OFF, clock=ManualClock())
    machine.run()
    assert machine.clock.now() == 50_000_000


def test_the_host_clock_sleeps_really(make: Make) -> None:
    machine = make(sleep(50 * TICKS_PER_MS), POWER_OFF)
    begin = time.monotonic()
    machine.run()
    assert time.monotonic() - begin > 0.035  # it may catch up with 10 ms


def test_a_busy_guest_is_called_back_at_the_deadline(make: Make) -> None:
    machine = make(SPIN)
    begin = time.monotonic()
    machine.run_for(0.05)
    assert time.monotonic() - begin > 0.035  # it may catch up with 10 ms


def test_when_the_host_ran_other_things_the_guest_has_time_before_the_next_event(make: Make) -> None:
    """It may not have run at all since the last one: ALSA takes two periods at once for lost interrupts."""
    elsewhere = [0]
    machine = make(SPIN, clock=HostClock(lambda: time.monotonic_ns() + elsewhere[0]))
    blocks: list[int] = []

    def second() -> None:
        blocks.append(machine._engine.blocks)

    def first() -> None:
        second()
        machine.events.at(machine.clock.now() + 10 * MS, second)
        elsewhere[0] += 15 * MS

    machine.events.at(machine.clock.now() + 5 * MS, first)
    assert machine.run_until(lambda: len(blocks) == 2)
    assert (blocks[1] - blocks[0]) * SLOWEST_PS_PER_BLOCK >= 10 * MS * 1000


def test_a_busy_guest_does_not_warp(make: Make) -> None:
    """Time goes by while it computes, and only then: a stop is not a wait."""
    machine = make(
        rdtime(S0), li(T0, 100 * TICKS_PER_MS), add(T0, T0, S0), "loop", rdtime(T1), addi(T2, T2, 1),
        bltu(T1, T0, "loop"), POWER_OFF, clock="warp",
    )  # fmt: skip
    for n in range(50):
        machine.events.at(n * 1_000_000, lambda: None)
    machine.events.at(10**15, lambda: None)
    machine.run()
    assert 100 * MS < machine.clock.now() < 101 * MS
    assert machine._engine.blocks * PS_PER_BLOCK // 1000 == machine.clock.now()


def test_the_timer_interrupts_a_busy_guest(make: Make) -> None:
    machine = make(
        la(T0, "handler"), csrw(Csr.STVEC, T0), li(T0, STI), csrw(Csr.SIE, T0),
        rdtime(A0), addi(A0, A0, 2000), li(A7, TIME), li(A6, 0), ecall(), csrsi(Csr.SSTATUS, 2), j(0),
        "handler", csrr(S0, Csr.SCAUSE), say("tick"), POWER_OFF,
    )  # fmt: skip
    machine.run()
    assert machine.console.text == b"tick"


def test_the_time_csr_and_the_clint_agree(make: Make) -> None:
    machine = make(li(T0, 0x200_BFF8), rdtime(A0), lw(A1, T0), rdtime(A2), "end", wfi(), j("end"), clock=ManualClock())
    machine.clock.advance(123_400)  # type: ignore[attr-defined]
    machine.run_for(0.001)
    assert [machine._engine.state[register] for register in (A0, A1, A2)] == [1234] * 3


@pytest.mark.parametrize("native", [True, False])
def test_all_clocks_of_the_guest_agree_under_warp(make: Make, monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """The time CSR and the CLINT, to the tick, and that is the machine's own; 25 blocks of 4 ns are a tick."""
    monkeypatch.setenv(SWITCH, "" if native else "off")
    machine = make(
        li(T0, 0x200_BFF8), [[j(f"{n}"), f"{n}"] for n in range(1000)],
        rdtime(A0), lw(A1, T0), rdtime(A2), "end", wfi(), j("end"), clock="warp",
    )  # fmt: skip
    machine.run_for(0.001)
    # The jump of the kernel's header, its own, and those that a system instruction ends.
    assert [machine._engine.state[register] for register in (A0, A1, A2)] == [(1 + 1 + 1000) * 4 // 100] * 3


def test_the_native_part_tells_the_time(make: Make) -> None:
    """The clock is asked in Python only where there is none; else a guest that looks at it often is slow."""
    for clock in ("host", "warp"):
        machine = make(rdtime(A0), POWER_OFF, clock=clock)
        machine.run()
        assert machine._engine.native.time_reads == 1  # type: ignore[union-attr]


# ---------------------------------------------------------------- time is work


def ticking(code: list[Item]) -> list[Item]:
    """Do something each time that a timer interrupts a loop, which is of different length for each seed."""
    return [
        la(T0, "handler"), csrw(Csr.STVEC, T0), li(T0, STI), csrw(Csr.SIE, T0), li(S1, 50),
        "set", rdtime(A0), addi(A0, A0, 77), li(A7, TIME), li(A6, 0), ecall(), csrsi(Csr.SSTATUS, 2),
        "loop", addi(S2, S2, 1), j("loop"),
        "handler", code, addi(S1, S1, -1), bne(S1, ZERO, "set"), POWER_OFF,
    ]  # fmt: skip


def outcome(machine: Machine) -> tuple[int, int, bytes]:
    """What the guest counted, how late it is then, and all that it printed."""
    return machine._engine.state[S2], machine.clock.now(), bytes(machine.console.text)


def test_warp_is_the_same_every_time_whoever_rings(make: Make) -> None:
    """Other threads post, and a signal comes, at any time; the guest is not stopped for them."""
    quiet = make(ticking(say("tick")), clock="warp")
    quiet.run()
    for _ in range(3):
        machine, over = make(ticking(say("tick")), clock="warp"), threading.Event()

        def disturb(machine: Machine = machine, over: threading.Event = over) -> None:
            while not over.wait(0.0002):
                machine.post(lambda: None)

        thread = threading.Thread(target=disturb)
        thread.start()
        machine.run()
        over.set()
        thread.join()
        assert outcome(machine) == outcome(quiet)


def test_warp_is_the_same_with_and_without_the_native_part(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = set()
    for switch in ("", "off"):
        monkeypatch.setenv(SWITCH, switch)
        machine = make(ticking(say("tick")), clock="warp")
        machine.run()
        outcomes.add(outcome(machine))
    assert len(outcomes) == 1


def test_a_real_timeout_changes_nothing(make: Make) -> None:
    whole, pieces = (make(ticking(say("tick")), clock="warp") for _ in range(2))
    whole.run()
    while pieces.power is None:
        pieces.run_until(lambda: False, timeout=0.001)
    assert outcome(pieces) == outcome(whole)


def test_the_seed_is_what_differs(make: Make) -> None:
    def chances(**options: object) -> tuple[bytes, int]:
        machine = make(POWER_OFF, **options)
        rtc = next(one.device for one in machine.placements if one.device.node_name == "rtc")
        return machine.dtb, rtc.read(0, 4) | rtc.read(4, 4) << 32

    assert chances(clock="warp") == chances(clock="warp") == chances(clock="warp", seed=0)
    assert chances(clock="warp", seed=1) == chances(clock="warp", seed=1) != chances(clock="warp", seed=0)
    assert chances(clock="host") != chances(clock="host")


def test_each_seed_has_a_timing_of_its_own(make: Make) -> None:
    def run(**options: object) -> tuple[int, int, bytes]:
        machine = make(ticking(say("tick")), **options)
        machine.run()
        return outcome(machine)

    assert run(clock="warp", seed=0) == run(clock="warp") == run(clock=WarpClock())
    assert run(clock="warp", seed=1) == run(clock="warp", seed=1)
    assert len({run(clock="warp", seed=seed)[:2] for seed in range(10)}) == 10


def test_only_a_seed_under_warp_costs_anything(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a clock that somebody has set to a speed keeps it."""
    made: list[object] = []
    monkeypatch.setattr("emu.machine.Jitter", lambda *parts: made.append(parts) or Jitter(*parts))
    make(POWER_OFF, clock="host", seed=3)
    make(POWER_OFF, clock=ManualClock(), seed=3)
    make(POWER_OFF, clock="warp", seed=0)
    assert made == []
    machine = make(POWER_OFF, clock=WarpClock(2_000), seed=3)
    assert machine.clock.ps_per_block == 2_000  # type: ignore[attr-defined]
    assert len(made) == 1


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("code", [SPIN, WAIT])
def test_messages_from_other_threads(make: Make, code: list[Item]) -> None:
    machine = make(code)
    count, owner = 0, threading.get_ident()
    threads_seen = set()

    def message() -> None:
        nonlocal count
        count += 1
        threads_seen.add(threading.get_ident())

    def post() -> None:
        for _ in range(300):
            machine.post(message)
            time.sleep(0.0001)

    threads = [threading.Thread(target=post) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert machine.run_until(lambda: count == 900)
    for thread in threads:
        thread.join()
    assert threads_seen == {owner}


def test_a_message_that_raises_comes_out(make: Make) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    machine = make(SPIN)
    threading.Timer(0.02, machine.post, [fail]).start()
    with pytest.raises(KeyboardInterrupt):
        machine.run()
    machine.run_for(0.01)


def test_a_timeout_in_real_time(make: Make) -> None:
    assert not make(SPIN).run_until(lambda: False, timeout=0.05)


def test_devices_stand_still_while_the_machine_is_paused(make: Make) -> None:
    """Else how long a pause takes would decide how far they come between two of the guest's turns."""
    machine = make(SPIN)
    done: list[int] = []

    def again() -> None:
        done.append(machine.clock.now())
        machine.events.at(machine.clock.now(), again)

    machine.run_for(0.001)
    machine.events.at(machine.clock.now(), again)
    machine.pause()
    machine.post(lambda: None)
    assert not machine.run_until(lambda: bool(done), timeout=0.05)
    machine.resume()
    assert machine.run_until(lambda: bool(done))


def test_another_thread_is_told_to_post(make: Make) -> None:
    machine = make(SPIN)
    told: list[str] = []

    def meddle() -> None:
        uses: list[Callable[[], object]] = [
            lambda: machine.run_for(1), machine.close, machine.pause, machine.resume,
            lambda: machine.monitor("info"), lambda: machine.console.send("x"), lambda: machine.console.run("true"),
        ]  # fmt: skip
        for use in uses:
            try:
                use()
            except UsageError as error:
                told.append(str(error))
        machine.post(machine.switch_off)

    machine.events.at(machine.clock.now(), threading.Thread(target=meddle).start)
    assert machine.run().action is PowerAction.OFF
    assert told == ["the machine is running on another thread; use its post() from this one"] * 7


def test_what_the_machine_calls_can_neither_run_nor_close_it(make: Make) -> None:
    machine = make(say("x"), SPIN)

    def meddle() -> None:
        with pytest.raises(UsageError, match="is running already"):
            machine.run_for(1)
        with pytest.raises(UsageError, match="cannot be closed by what it calls"):
            machine.close()
        machine.switch_off()

    machine.events.at(machine.clock.now(), meddle)
    assert machine.run().action is PowerAction.OFF


def test_after_an_exception_nothing_rings_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYEMU_NATIVE", "off")  # the alarm is a thread, then
    machine = make(TRAP)
    with pytest.raises(MachineError):
        machine.run()
    alarm = machine._loop._alarm_thread
    assert alarm is not None
    assert alarm.look() < 0, "it sleeps until it is woken"


# ---------------------------------------------------------------- M mode


def test_firmware_alone_with_a_timer_of_its_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As xv6 begins, and every tick of it: with Sstc, and without the default guest."""
    monkeypatch.setattr(guest, "files", lambda *_: pytest.fail("the default guest was asked for"))
    bios = tmp_path / "firmware.bin"
    switch_on = [li(T0, 1 << 63), csrw(MENVCFG, T0), li(T0, STI), csrw(Csr.MIE, T0)]
    wait = [rdtime(A0), li(T1, 50 * TICKS_PER_MS), add(A0, A0, T1), csrw(STIMECMP, A0), wfi()]
    bios.write_bytes(assemble(BASE, switch_on, wait, POWER_OFF))
    with Machine(bios=bios, memory="16M", clock="warp") as machine:
        assert machine.run_until(lambda: False) is False
        assert machine.power == PowerRequest(PowerAction.OFF)
        assert machine.clock.now() >= 50 * MS


# ---------------------------------------------------------------- hostile guests


def test_a_trap_without_a_handler(make: Make) -> None:
    with pytest.raises(MachineError, match=r"^hart 0 has no handler for its trap: pc 0x80200040, cause 2 "):
        make(TRAP).run()


def test_a_reset_vector_of_device_registers(make: Make) -> None:
    with pytest.raises(MachineError, match=r"hart 0 .*cause 1"):
        make(li(T0, 0x1000_0000), csrw(Csr.STVEC, T0), 0x0002_8067, SPIN).run()


def test_all_of_the_address_space_is_safe_to_touch(make: Make) -> None:
    """Loads and stores of junk, 4 bytes in every 64 KiB up to the end of the RAM and beyond."""
    machine = make(
        la(T0, "handler"), csrw(Csr.STVEC, T0), li(T0, 0x20_0000), li(T1, 0x8000_0000), li(T2, 0x1_0000), li(S0, -1),
        "loop", lw(A0, T0), sw(S0, T0), "next", add(T0, T0, T2), bltu(T0, T1, "loop"), POWER_OFF,
        "handler", csrr(A1, Csr.SEPC), addi(A1, A1, 4), csrw(Csr.SEPC, A1), 0x1020_0073,
    )  # fmt: skip
    assert machine.run_until(lambda: machine.power is not None)


def test_a_timer_in_ages_is_none_at_all(make: Make) -> None:
    """Time would have to jump that far."""
    machine = make(sbi(TIME, 0, (1 << 64) - 2), wfi(), POWER_OFF, clock="warp")
    assert not machine.run_until(lambda: False, timeout=0.3)
    assert machine.power is None
    assert machine.clock.now() < MS


# ---------------------------------------------------------------- the end


class Sink(NullSink):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


def test_closed_twice(make: Make) -> None:
    machine = make(WAIT)
    machine.close()
    machine.close()


def test_the_context_closes_also_after_a_failure(tmp_path: Path) -> None:
    sink = Sink()
    with leaves_nothing():
        with pytest.raises(LookupError), Machine(write_image(tmp_path / "Image", WAIT), memory="32M", audio=sink):
            raise LookupError
        assert sink.closed == 1


def collect(sink: Sink, before: set[threading.Thread]) -> None:
    """Until the alarm's thread sleeps, it has a reference, too; and it may be where the machine is closed."""
    while not sink.closed:
        gc.collect()
        time.sleep(0.01)
    for thread in threads() - before:
        thread.join()


@pytest.mark.parametrize("native", ["on", "off"])
def test_a_program_that_forgets_its_machine_ends_and_nothing_is_lost(tmp_path: Path, native: str) -> None:
    """A machine with a disk has a thread of its own by the host's clock, and without the native part one more."""
    image, disk, sound = write_image(tmp_path / "Image", WAIT), tmp_path / "disk.img", tmp_path / "out.wav"
    disk.write_bytes(bytes(1 << 20))
    code = (
        "import sys; from emu import Machine\n"
        "machine = Machine(sys.argv[1], memory='32M', disk=sys.argv[2], audio=f'wav:{sys.argv[3]}')\n"
        "machine.run_for(0.01); machine.console.output = lambda data: print(data.decode())\n"
        "machine.console.print(b'the last word')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, image, disk, sound],
        cwd=ROOT, env={**os.environ, SWITCH: native}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "the last word\n"


@pytest.mark.parametrize("native", ["on", "off"])
def test_a_machine_that_nobody_closes_goes_with_its_last_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    monkeypatch.setenv("PYEMU_NATIVE", native)
    sink = Sink()
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    with leaves_nothing():
        before = threads()
        machine = Machine(write_image(tmp_path / "Image", say("x"), WAIT), memory="32M", audio=sink, disk=str(disk))
        machine.run_for(0.01)
        del machine
        with pytest.warns(ResourceWarning, match="a Machine was not closed"):
            collect(sink, before)
    assert sink.closed == 1


def test_a_wrong_argument_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Machine(write_image(tmp_path / "Image", WAIT), memory="1K", audio=f"wav:{tmp_path}/out.wav")
    with pytest.raises(UsageError):
        Machine(write_image(tmp_path / "Image", WAIT), memory="32M", audio=f"wav:{tmp_path}/out.wav", disk="none.img")
    with Machine(write_image(tmp_path / "Image", WAIT), memory="32M", audio=f"wav:{tmp_path}/out.wav"):
        pass  # what is open elsewhere would be refused


def test_a_machine_that_cannot_be_built_lets_go_of_its_disks(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    image = write_image(tmp_path / "Image", POWER_OFF)
    for _ in range(2):  # the lock of the first would be in the way of the second
        with pytest.raises(UsageError, match="No such file"):
            Machine(image, tmp_path / "none.cpio", memory="32M", disks=[str(disk)])
    with Machine(image, memory="32M", disks=[str(disk)]) as machine:
        assert machine.run().action is PowerAction.OFF


def test_a_second_disk_that_is_not_there_lets_go_of_the_first(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    image = write_image(tmp_path / "Image", POWER_OFF)
    for _ in range(2):
        with pytest.raises(UsageError, match="none"):
            Machine(image, memory="32M", disks=[str(disk), str(tmp_path / "none.img")])
    with Machine(image, memory="32M", disks=[str(disk)]):
        pass


def test_thirteen_disks_fit_and_not_fourteen(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(512))
    image = write_image(tmp_path / "Image", WAIT)
    with Machine(image, memory="32M", disks=[f"{disk},readonly"] * 13) as machine:
        assert [device.device_id for device in machine.virtio] == [2] * 13 + [25, 4, 3]
    with pytest.raises(UsageError, match="room for 16 virtio devices, not 17; use fewer --disk, --share"):
        Machine(image, memory="32M", disks=[f"{disk},readonly"] * 14)


@pytest.mark.parametrize("memory", ["1M", "65G", "0", "-5M", "much", 1 << 70])
def test_absurd_memory(tmp_path: Path, memory: str | int) -> None:
    with pytest.raises(UsageError):
        Machine(write_image(tmp_path / "Image", WAIT), memory=memory)


def test_fifty_machines_one_after_the_other(tmp_path: Path) -> None:
    image = write_image(tmp_path / "Image", say("x"), POWER_OFF)
    for _ in range(50):
        with Machine(image, memory="32M") as machine:
            machine.run()
            assert machine.console.text == b"x"


@pytest.mark.parametrize(
    "use",
    [
        lambda machine: machine.run(),
        lambda machine: machine.run_for(1),
        lambda machine: machine.run_until(lambda: False, 1),
        lambda machine: machine.console.run("true"),
        lambda machine: machine.console.expect("never"),
        lambda machine: machine.console.send("x"),
        lambda machine: machine.console.sendline(),
        lambda machine: machine.monitor("info irqs"),
    ],
)
def test_a_closed_machine_says_so(make: Make, use: Callable[[Machine], object]) -> None:
    machine = make(say("hello"), WAIT)
    machine.run_for(0.01)
    machine.console.send("x")
    machine.close()
    with pytest.raises(UsageError, match=r"^the machine is closed; "):
        use(machine)


def test_what_a_closed_machine_still_does(make: Make) -> None:
    machine = make(say("hello"), WAIT)
    machine.run_for(0.01)
    machine.close()
    machine.post(lambda: None)
    machine.switch_off()
    assert machine.run() == PowerRequest(PowerAction.OFF)
    assert machine.counters.printed == 5
    assert machine.console.expect("hello")
