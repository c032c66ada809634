import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from devices.clint import TIMEBASE_HZ, Clint, HartLines
from devices.contracts import IrqLine, Property, Ref
from devices.errors import UsageError
from devices.placement import Placement
from devices.plic import Plic
from devices.rtc import GoldfishRtc
from devices.syscon import TestDevice
from devices.uart import Uart16550
from firmware.fdt import Node, board_tree, encode
from tests.fakes import FakeClock, FakeEvents

needs_dtc = pytest.mark.skipif(shutil.which("dtc") is None, reason="needs dtc (package device-tree-compiler)")

RAM = range(0x8000_0000, 0x9000_0000)


class VirtioSlot:
    size = 0x1000
    node_name = "virtio_mmio"
    compatible: tuple[str, ...] = ("virtio,mmio",)
    properties: ClassVar[Mapping[str, Property]] = {}

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass


def board(harts: int = 1) -> list[Placement]:
    def nowhere(level: bool) -> None:
        pass

    line: IrqLine = nowhere
    clock = FakeClock()
    events = FakeEvents(clock)
    return [
        Placement(TestDevice(print), 0x10_0000),
        Placement(GoldfishRtc(line, clock, events), 0x10_1000, 11),
        Placement(Clint(clock, events, [HartLines(line, line)] * harts), 0x200_0000),
        Placement(Plic(95, [line] * 2 * harts), 0xC00_0000),
        Placement(Uart16550(line, clock, events, print), 0x1000_0000, 10),
        *(Placement(VirtioSlot(), 0x1000_1000 + slot * 0x1000, slot + 1) for slot in range(8)),
    ]


def full_tree(**changes: object) -> bytes:
    options: dict[str, object] = {
        "ram": RAM,
        "timebase": TIMEBASE_HZ,
        "isa": "rv64imafdc",
        "bootargs": 'console=ttyS0 x="quoted words"',
        "initrd": range(0x8F00_0000, 0x8F12_3456),
        "rng_seed": bytes(range(200, 232)),
    }
    return board_tree(board(), **(options | changes))  # type: ignore[arg-type]


class Dtb:
    """A blob as libfdt reads it."""

    def __init__(self, path: Path, blob: bytes) -> None:
        self.path = path
        path.write_bytes(blob)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.strip()

    def source(self) -> str:
        return self._run("dtc", "-I", "dtb", "-O", "dts", str(self.path))

    def cells(self, node: str, name: str) -> list[int]:
        return [int(cell, 16) for cell in self._run("fdtget", "-t", "x", str(self.path), node, name).split()]

    def string(self, node: str, name: str) -> str:
        return self._run("fdtget", "-t", "s", str(self.path), node, name)

    def names(self, node: str) -> list[str]:
        return self._run("fdtget", "-l", str(self.path), node).split()


@pytest.fixture
def dtb(tmp_path: Path) -> Dtb:
    return Dtb(tmp_path / "board.dtb", full_tree())


@needs_dtc
@pytest.mark.parametrize(
    "changes",
    [{}, {"bootargs": "", "initrd": None, "rng_seed": b""}, {"ram": range(0x8000_0000, 0x8000_0000 + (8 << 30))}],
)
def test_dtc_has_no_complaints(tmp_path: Path, changes: dict[str, object]) -> None:
    source = Dtb(tmp_path / "board.dtb", full_tree(**changes)).source()  # _run fails if there is a warning
    assert "serial@10000000" in source


@needs_dtc
def test_two_harts_are_wired_too(tmp_path: Path) -> None:
    two = Dtb(tmp_path / "two.dtb", board_tree(board(2), ram=RAM, timebase=TIMEBASE_HZ, isa="rv64imafdc", harts=2))
    two.source()
    first, second = (two.cells(f"/cpus/cpu@{hart}/interrupt-controller", "phandle")[0] for hart in (0, 1))
    assert two.cells("/soc/interrupt-controller@c000000", "interrupts-extended") == [
        *(first, 11, first, 9),
        *(second, 11, second, 9),
    ]


@needs_dtc
def test_what_linux_looks_for_in_chosen(dtb: Dtb) -> None:
    assert dtb.string("/chosen", "bootargs") == 'console=ttyS0 x="quoted words"'
    assert dtb.string("/chosen", "stdout-path") == "/soc/serial@10000000:115200n8"
    assert dtb.cells("/chosen", "linux,initrd-start") == [0, 0x8F00_0000]
    assert dtb.cells("/chosen", "linux,initrd-end") == [0, 0x8F12_3456]
    assert b"".join(cell.to_bytes(4, "big") for cell in dtb.cells("/chosen", "rng-seed")) == bytes(range(200, 232))


@needs_dtc
def test_memory_and_cpu(dtb: Dtb) -> None:
    assert dtb.cells("/memory@80000000", "reg") == [0, 0x8000_0000, 0, 0x1000_0000]
    assert dtb.cells("/cpus", "timebase-frequency") == [10_000_000]
    assert dtb.string("/cpus/cpu@0", "riscv,isa") == "rv64imafdc"
    assert dtb.string("/cpus/cpu@0", "mmu-type") == "riscv,sv57"


@needs_dtc
def test_every_device_is_where_the_bus_has_it(dtb: Dtb) -> None:
    placements = board()
    nodes = [f"{placement.device.node_name}@{placement.base:x}" for placement in placements]
    assert dtb.names("/soc") == nodes
    for node, placement in zip(nodes, placements, strict=True):
        assert dtb.cells(f"/soc/{node}", "reg") == [0, placement.base, 0, placement.device.size]
        assert dtb.string(f"/soc/{node}", "compatible") == " ".join(placement.device.compatible)
        if placement.irq is not None:
            assert dtb.cells(f"/soc/{node}", "interrupts") == [placement.irq]


@needs_dtc
def test_interrupts_lead_to_the_plic_and_from_there_to_the_hart(dtb: Dtb) -> None:
    plic = "/soc/interrupt-controller@c000000"
    assert dtb.cells("/soc/serial@10000000", "interrupt-parent") == dtb.cells(plic, "phandle")
    (hart,) = dtb.cells("/cpus/cpu@0/interrupt-controller", "phandle")
    assert dtb.cells(plic, "interrupts-extended") == [hart, 11, hart, 9]
    assert dtb.cells(plic, "riscv,ndev") == [95]
    assert dtb.cells("/soc/clint@2000000", "interrupts-extended") == [hart, 3, hart, 7]


@needs_dtc
@pytest.mark.parametrize(("node", "value"), [("/poweroff", 0x5555), ("/reboot", 0x7777)])
def test_generic_drivers_find_the_test_device(dtb: Dtb, node: str, value: int) -> None:
    assert dtb.cells(node, "regmap") == dtb.cells("/soc/test@100000", "phandle")
    assert dtb.cells(node, "offset") == [0]
    assert dtb.cells(node, "value") == [value]


@pytest.mark.parametrize("bootargs", ["", "x", "xy", "xyz", "wxyz", "vwxyz"])
def test_size_is_right_and_aligned(bootargs: str) -> None:
    blob = full_tree(bootargs=bootargs)
    assert int.from_bytes(blob[4:8], "big") == len(blob)
    assert len(blob) % 8 == 0


@pytest.mark.parametrize("bootargs", ["caf\u00e9", "two\nlines", "nul\0"])
def test_bootargs_that_a_tree_cannot_hold(bootargs: str) -> None:
    with pytest.raises(UsageError, match="printable ASCII"):
        full_tree(bootargs=bootargs)


@needs_dtc
def test_properties_stand_before_children_whatever_the_order(tmp_path: Path) -> None:
    root = Node("/", {"#address-cells": 1, "#size-cells": 1}, [Node("child", label="child")])
    root.properties["to"] = (Ref("child"),)
    Dtb(tmp_path / "tree.dtb", encode(root)).source()


def test_a_reference_to_nothing_is_a_bug() -> None:
    with pytest.raises(KeyError):
        encode(Node("/", {"to": (Ref("nothing"),)}))
