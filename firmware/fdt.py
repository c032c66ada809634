"""The flattened device tree (Devicetree Specification 0.4) of the machine.

A tree is plain data until it is encoded: nodes with their properties and children, and ``Ref`` in place of a phandle.
``encode`` allots the phandles and hands everything to pyfdt in the form it needs.
"""

# pyfdt has no type hints.
# mypy: allow-untyped-calls

from collections.abc import Iterator, Mapping, Sequence

from pyfdt import pyfdt

from devices.contracts import HasCompanions, Property, Ref, cpu_intc
from devices.errors import UsageError
from devices.placement import Placement

__all__ = ["Node", "board_tree", "encode"]

#: A DTB's size is a multiple of this, so that whatever follows it in memory is aligned.
ALIGNMENT = 8


class Node:
    """A node of the tree; a ``Ref`` finds it by its ``label``."""

    def __init__(
        self,
        name: str,
        properties: dict[str, Property] | None = None,
        children: "list[Node] | None" = None,
        label: str | None = None,
    ) -> None:
        self.name, self.label = name, label
        self.properties = {} if properties is None else properties
        self.children = [] if children is None else children

    def walk(self) -> Iterator["Node"]:
        """Yield this node and everything below it, in the order of the blob."""
        yield self
        for child in self.children:
            yield from child.walk()


def encode(root: Node) -> bytes:
    """Return the tree as a version 17 blob.

    Raises UsageError for a string that a device tree cannot hold, KeyError for a ``Ref`` that matches no node.
    """
    tree = pyfdt.Fdt()
    tree.add_rootnode(_encode_node(root, _allot_phandles(root)))
    blob: bytes = tree.to_dtb()
    padding = -len(blob) % ALIGNMENT
    # pyfdt stops right after the strings: pad, and adjust the header's totalsize.
    return blob[:4] + (len(blob) + padding).to_bytes(4, "big") + blob[8:] + bytes(padding)


def _allot_phandles(root: Node) -> Mapping[str, int]:
    """Number the nodes that some property refers to; if several share a label, the first is meant."""
    used = {
        cell.label
        for node in root.walk()
        for value in node.properties.values()
        if isinstance(value, tuple)
        for cell in value
        if isinstance(cell, Ref)
    }
    phandles: dict[str, int] = {}
    for node in root.walk():
        if node.label in used and node.label not in phandles:
            phandles[node.label] = len(phandles) + 1
            node.properties["phandle"] = phandles[node.label]
    return phandles


def _encode_node(node: Node, phandles: Mapping[str, int]) -> pyfdt.FdtNode:
    encoded = pyfdt.FdtNode(node.name)
    # All properties before the first child: pyfdt keeps the order, and readers miss a property that comes later.
    for name, value in node.properties.items():
        encoded.append(_encode_property(name, value, phandles))
    for child in node.children:
        encoded.append(_encode_node(child, phandles))
    return encoded


def _encode_property(name: str, value: Property, phandles: Mapping[str, int]) -> pyfdt.FdtProperty:
    if value is None:
        return pyfdt.FdtProperty(name)
    values = value if isinstance(value, tuple) else (value,)
    strings = [item for item in values if isinstance(item, str)]
    if strings:
        for string in strings:
            _check_string(name, string)
        return pyfdt.FdtPropertyStrings(name, strings)
    cells = [phandles[item.label] if isinstance(item, Ref) else item for item in values]
    return pyfdt.FdtPropertyWords(name, cells)


def _check_string(name: str, string: str) -> None:
    """Refuse what pyfdt would refuse with a bare Exception."""
    if not string or not (string.isascii() and string.isprintable()):
        raise UsageError(f"{name} in the device tree must be printable ASCII, not {string!r}")


def _u64(value: int) -> tuple[int, int]:
    return value >> 32, value & 0xFFFF_FFFF


def _unit(name: str, address: int) -> str:
    return f"{name}@{address:x}"


def board_tree(
    placements: Sequence[Placement],
    *,
    ram: range,
    timebase: int,
    isa: str,
    mmu: str = "sv57",
    harts: int = 1,
    bootargs: str = "",
    initrd: range | None = None,
    rng_seed: bytes = b"",
) -> bytes:
    """Return the DTB of a board with these devices.

    ``ram`` and ``initrd`` are physical addresses, ``timebase`` is in Hz, ``isa`` is the value of ``riscv,isa``
    ("rv64imafdc"), ``mmu`` the largest of sv39, sv48, sv57. The first ``serial`` is the console. ``rng_seed`` is
    truncated to whole cells. Raises UsageError for ``bootargs`` that are not printable ASCII.
    """
    root = Node(
        "/",
        {
            "#address-cells": 2,
            "#size-cells": 2,
            "compatible": "riscv-virtio",
            "model": "pyemu,virt",
        },
    )
    root.children = [
        _chosen(placements, bootargs, initrd, rng_seed),
        Node(_unit("memory", ram.start), {"device_type": "memory", "reg": (*_u64(ram.start), *_u64(len(ram)))}),
        _cpus(harts, timebase, isa, mmu),
        _soc(placements),
        *(
            Node(name, dict(properties))
            for placement in placements
            if isinstance(placement.device, HasCompanions)
            for name, properties in placement.device.companions.items()
        ),
    ]
    return encode(root)


def _chosen(placements: Sequence[Placement], bootargs: str, initrd: range | None, rng_seed: bytes) -> Node:
    chosen: dict[str, Property] = {}
    if bootargs:
        chosen["bootargs"] = bootargs
    console = next((placement for placement in placements if placement.device.node_name == "serial"), None)
    if console is not None:
        chosen["stdout-path"] = f"/soc/{_unit('serial', console.base)}:115200n8"
    if initrd is not None:
        chosen["linux,initrd-start"] = _u64(initrd.start)
        chosen["linux,initrd-end"] = _u64(initrd.stop)
    if len(rng_seed) >= 4:
        # As cells: pyfdt's byte property wants signed numbers.
        chosen["rng-seed"] = tuple(
            int.from_bytes(rng_seed[i : i + 4], "big") for i in range(0, len(rng_seed) // 4 * 4, 4)
        )
    return Node("chosen", chosen)


def _cpus(harts: int, timebase: int, isa: str, mmu: str) -> Node:
    return Node(
        "cpus",
        {"#address-cells": 1, "#size-cells": 0, "timebase-frequency": timebase},
        [_cpu(hart, isa, mmu) for hart in range(harts)],
    )


def _cpu(hart: int, isa: str, mmu: str) -> Node:
    interrupts = Node(
        "interrupt-controller",
        {"compatible": "riscv,cpu-intc", "interrupt-controller": None, "#interrupt-cells": 1, "#address-cells": 0},
        label=cpu_intc(hart).label,
    )
    properties: dict[str, Property] = {
        "device_type": "cpu",
        "reg": hart,
        "status": "okay",
        "compatible": "riscv",
        "riscv,isa": isa,
        "mmu-type": f"riscv,{mmu}",
    }
    return Node(_unit("cpu", hart), properties, [interrupts])


def _soc(placements: Sequence[Placement]) -> Node:
    return Node(
        "soc",
        {"compatible": "simple-bus", "#address-cells": 2, "#size-cells": 2, "ranges": None},
        [_device(placement, _interrupt_controller(placements)) for placement in placements],
    )


def _interrupt_controller(placements: Sequence[Placement]) -> Ref | None:
    """Find the device that receives the interrupts of the others."""
    for placement in placements:
        if "interrupt-controller" in placement.device.properties:
            return Ref(placement.device.node_name)
    return None


def _device(placement: Placement, interrupt_controller: Ref | None) -> Node:
    device = placement.device
    properties: dict[str, Property] = {
        "compatible": device.compatible,
        "reg": (*_u64(placement.base), *_u64(device.size)),
    }
    if placement.irq is not None and interrupt_controller is not None:
        properties["interrupt-parent"] = (interrupt_controller,)
        properties["interrupts"] = placement.irq
    properties.update(device.properties)
    return Node(_unit(device.node_name, placement.base), properties, label=device.node_name)
