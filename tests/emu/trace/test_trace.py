"""What is recorded of a watched machine, and that an unwatched one has nothing between its parts."""

import pytest

from devices.audio import NullSink
from devices.placement import Placement
from devices.plic import Plic
from devices.virtio.rng import EntropyDevice
from emu import Machine, MachineError, Record, Trace, TraceFile
from emu.joints import Joints
from emu.timing.clock import ManualClock
from tests.emu.asm import A0, A6, A7, T0, T1, Csr, add, csrw, ecall, li, rdtime, wfi
from tests.emu.tiny import POWER_OFF, RESET, TRAP, say, write_image

TIME = 0x54494D45
STI = 1 << 5
#: Wait for a timer set 1 ms ahead, set it again, and switch off.
SLEEP = [
    li(T0, STI), csrw(Csr.SIE, T0), rdtime(A0), li(T1, 10_000), add(A0, A0, T1),
    li(A7, TIME), li(A6, 0), ecall(), wfi(), li(A0, -1), ecall(), POWER_OFF,
]  # fmt: skip


@pytest.fixture
def watch(tmp_path):
    """Run code; return the records."""

    def run(*code, categories: str = "all") -> list[Record]:
        records: list[Record] = []
        image = write_image(tmp_path / "Image", *code)
        with Machine(image, memory="32M", clock=ManualClock(), trace=Trace(records.append, categories)) as machine:
            machine.run()
        return records

    return run


def test_what_a_hart_does_over_time(watch):
    told = [(record.category, record.name, *record.detail.values()) for record in watch(SLEEP)]
    assert told == [
        ("trap", "ecall", told[0][2]),
        ("sbi", "set_timer", 1000.0, "SUCCESS"),
        ("run", "running", "WFI"),
        ("run", "waiting"),
        ("timer", "expired"),
        ("trap", "ecall", told[5][2]),
        ("timer", "pending", "set again"),
        ("sbi", "set_timer", "never", "SUCCESS"),
        ("run", "running", "event"),
    ]


def test_times_are_guest_time(watch):
    [waiting] = [record for record in watch(SLEEP) if record.name == "waiting"]
    assert waiting.span == (0, 1_000_000)
    assert waiting.time == 1_000_000


@pytest.mark.parametrize("category", ["sbi", "timer", "run", "trap"])
def test_only_what_is_requested_is_recorded(watch, category):
    assert {record.category for record in watch(SLEEP, categories=category)} == {category}


def test_an_exception_is_named(tmp_path):
    records = []
    trace = Trace(records.append, "trap")
    machine = Machine(write_image(tmp_path / "Image", TRAP), memory="32M", trace=trace)
    with machine, pytest.raises(MachineError, match="no handler"):
        machine.run()
    assert records[0].name == "illegal instruction"


def test_each_machine_has_a_number(tmp_path):
    records: list[Record] = []
    trace = Trace(records.append, "run")
    image = write_image(tmp_path / "Image", say("x"), RESET)
    for _ in range(2):
        with Machine(image, memory="32M", trace=trace) as machine:
            machine.run()
    assert [record.machine for record in records] == [1, 2]


def test_a_trace_file_is_a_sink(tmp_path):
    image = write_image(tmp_path / "Image", SLEEP)
    with TraceFile(tmp_path / "trace.json") as file, Machine(image, memory="32M", trace=Trace(file)) as machine:
        machine.run()
    assert '"set_timer"' in (tmp_path / "trace.json").read_text()


def unwatched() -> Joints:
    return Joints()


def watched_for_something_else() -> Joints:
    return Trace(print, "trap").joints(ManualClock())


@pytest.mark.parametrize("joints", [unwatched, watched_for_something_else])
def test_what_is_not_watched_is_not_touched(joints):
    joints = joints()
    backend, device, plic = NullSink(), EntropyDevice(), Plic(1, [print])
    assert joints.audio(backend) is backend
    assert joints.virtio(0, device) is device
    assert joints.registers(Placement(plic, 0)) == (plic.read, plic.write)
    for joint in (joints.timer, joints.calls, joints.run, joints.wait, lambda line: joints.irq(1, "", line)):
        assert joint(len) is len


def test_a_machine_is_not_watched_by_default(tmp_path):
    with Machine(write_image(tmp_path / "Image", SLEEP), memory="32M") as machine:
        assert machine._loop.run == machine._engine.run
        assert machine._loop.wait == machine.clock.wait
