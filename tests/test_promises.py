"""PROMISES.md: everything it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "tests" / "PROMISES.md").read_text().partition("## To come")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
PROMISES = [row for row in ROWS if row[0] not in {"promise", "---"}]
NAMED = re.findall(r"`(tests/[^`]*)`", "".join(row[-1] for row in PROMISES))


@pytest.mark.parametrize("named", NAMED)
def test_what_enforces_a_promise_exists(named):
    path, _, name = named.partition("::")
    assert (ROOT / path).is_file()
    if name:
        assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    else:
        assert path.startswith("tests/benchmarks/"), "name the test"


def test_every_row_belongs_to_a_table_with_a_header():
    tables = re.findall(r"(?:^\|.*\n?)+", TEXT, re.MULTILINE)
    headers = {"\n".join(table.splitlines()[:2]) for table in tables}
    assert headers == {"| promise | number | enforced by |\n|---|---|---|"}


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0])
def test_each_promise_has_a_number_and_is_enforced(row):
    promise, number, enforced = row
    assert promise
    assert number
    assert re.search(r"`tests/", enforced)
    assert ("tests/benchmarks/" in enforced) == ("by hand" in enforced)


def test_no_benchmark_is_without_a_promise():
    benchmarks = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/benchmarks").rglob("*.py")
                  if re.search(r'^(if __name__ == "__main__"|def test_)', path.read_text(), re.MULTILINE)}  # fmt: skip
    assert benchmarks == {named.partition("::")[0] for named in NAMED if named.startswith("tests/benchmarks/")}
