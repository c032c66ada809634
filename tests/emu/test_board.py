"""The board: QEMU virt's addresses and interrupts, no two devices in one place."""

from itertools import combinations

import pytest

from devices.contracts import HasCompanions
from devices.errors import UsageError
from devices.virtio.rng import EntropyDevice
from emu.board import Board, Lines, build_board
from emu.memory import Ram
from tests.fakes import FakeClock, FakeEvents, FakeIrq


def board(virtio: int = 2) -> tuple[Board, Lines]:
    clock = FakeClock()
    lines = Lines(*(FakeIrq() for _ in range(4)))
    made = build_board(
        lines=lines,
        clock=clock,
        events=FakeEvents(clock),
        memory=Ram(0x8000_0000, 16 << 20),
        power=lambda _request: None,
        virtio=[EntropyDevice() for _ in range(virtio)],
        print_=lambda _data: None,
    )
    return made, lines


def test_addresses_and_interrupts() -> None:
    places = {p.base: (p.device.compatible[-1], p.irq) for p in board()[0].placements}
    assert places[0x0010_0000] == ("syscon", None)
    assert places[0x0010_1000][1] == 11
    assert places[0x0200_0000] == ("riscv,clint0", None)
    assert places[0x0C00_0000] == ("riscv,plic0", None)
    assert places[0x1000_0000] == ("ns16550a", 10)
    assert [places[0x1000_1000 + 0x1000 * slot] for slot in range(8)] == [("virtio,mmio", n) for n in range(1, 9)]
    assert len(places) == 13


def test_nothing_overlaps_in_whole_pages() -> None:
    spans = [range(p.base, p.base + -(-p.device.size // 4096) * 4096) for p in board(16)[0].placements]
    for one, other in combinations(spans, 2):
        assert one.stop <= other.start or other.stop <= one.start
    assert max(span.stop for span in spans) <= 0x8000_0000


@pytest.mark.parametrize("count", [0, 1, 8])
def test_slots_without_a_device_have_no_device_id(count: int) -> None:
    made, _ = board(count)
    slots = [p.device for p in made.placements if 0x1000_1000 <= p.base < 0x1000_9000]
    assert [slot.read(8, 4) for slot in slots] == [4] * count + [0] * (8 - count)
    assert all(slot.read(0, 4) == 0x7472_6976 for slot in slots)


def test_more_devices_have_more_slots_and_interrupts_of_their_own() -> None:
    made, _ = board(16)
    assert [p.irq for p in made.placements if p.base > 0x1000_0000 and p.irq][:16] == [*range(1, 10), *range(12, 19)]
    sources = [p.irq for p in made.placements if p.irq is not None]
    assert len(sources) == len(set(sources))


def test_too_many_virtio_devices() -> None:
    with pytest.raises(UsageError, match="room for 16 virtio devices, not 17"):
        board(17)


def test_the_lines_arrive_where_they_belong() -> None:
    made, lines = board()
    clint, plic = (next(p.device for p in made.placements if p.base == base) for base in (0x0200_0000, 0x0C00_0000))
    clint.write(0, 4, 1)
    assert lines.machine_software.level  # type: ignore[attr-defined]
    plic.write(4 * 10, 4, 1)
    plic.write(0x2080, 4, 1 << 10)
    made.uart.write(1, 1, 2)  # the transmitter is empty
    assert lines.supervisor_external.level  # type: ignore[attr-defined]
    assert not lines.machine_external.level  # type: ignore[attr-defined]


def test_power_is_described() -> None:
    assert any(isinstance(p.device, HasCompanions) for p in board()[0].placements)
