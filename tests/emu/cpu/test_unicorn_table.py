"""emu/cpu/UNICORN.md has a row for each expected failure of the CPU's tests, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TABLE = Path(__file__).parents[3] / "emu" / "cpu" / "UNICORN.md"


def expected_failures() -> Iterator[tuple[str, str]]:
    """Find the tests that have the mark, or a fixture that gives it to them."""
    for path in set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}:
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        words = {function.name: set(re.findall(r"\w+", ast.unparse(function))) for function in functions}
        marks = {"xfail", *(name for name in words if {"fixture", "xfail"} <= words[name])}
        yield from ((path.name, name) for name in words if name.startswith("test_") and words[name] & marks)


def test_each_expected_failure_has_a_row() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", TABLE.read_text())
    assert sorted(named) == sorted(expected_failures())
