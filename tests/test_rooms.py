"""The packages as rooms of a house: what is upstairs may use what is below, never the other way round."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: From the ground floor up. ``emu`` itself is the machine and its console.
ROOMS = (
    "devices.audio",
    "devices.net",
    "devices.virtio",
    "devices",
    "firmware",
    "emu.cpu",
    "emu.timing",
    "emu.terminal",
    "emu.guest",
    "emu",
    "emu.trace",
    "emu.analysis",
    "emu.testing",
    "emu.fleet",
    "emu.cli",
)
#: On no floor: errors, contracts, types and arithmetic that all devices share; the names a user of the package sees.
SHARED = {
    "devices.errors",
    "devices.contracts",
    "devices.placement",
    "devices.power",
    "devices.registers",
    "devices.state",
}
DOORS = {"emu", "emu.__main__"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for room in ("devices", "firmware", "emu") for path in (ROOT / room).rglob("*.py")}


def room_of(module: str) -> str:
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


def imported(path: Path) -> Iterator[str]:
    """What is imported at run time, at the top or later; imports for types alone make no arrow."""
    for node in ast.walk(_without_types(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _without_types(tree: ast.Module) -> ast.Module:
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


@pytest.mark.parametrize("module", sorted(set(MODULES) - DOORS))
def test_arrows_point_down(module):
    used = {name for name in imported(MODULES[module]) if name in MODULES} - SHARED - {module}
    floor = ROOMS.index(room_of(module))
    assert [name for name in sorted(used) if ROOMS.index(room_of(name)) > floor] == []


def test_no_module_imports_itself_in_a_circle():
    arrows = {module: {name for name in _at_start(path) if name in MODULES} for module, path in MODULES.items()}
    while ends := {module for module, used in arrows.items() if not used & arrows.keys()}:
        arrows = {module: used for module, used in arrows.items() if module not in ends}
    assert sorted(arrows) == []


def _at_start(path: Path) -> Iterator[str]:
    for node in _without_types(ast.parse(path.read_text())).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
