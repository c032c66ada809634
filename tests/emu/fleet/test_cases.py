"""Cases as people write them."""

import pytest

from devices.errors import UsageError
from emu.fleet.cases import count_cases, matrix_of, read_cases


def test_a_matrix_is_every_combination_the_last_name_changing_first():
    points = matrix_of(["rate=8000,48000", "format=S16_LE,U8", "rate=1"])
    cases = list(read_cases(None, points))
    assert cases[:2] == [{"rate": 8000, "format": "S16_LE"}, {"rate": 8000, "format": "U8"}]
    assert len(cases) == count_cases(None, points) == 6


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-1.5e3", -1500.0), ("true", True), ("null", None), ("007", "007"), ("NaN", "NaN"), ("", ""),
     ("[1]", "[1]"), ('"1"', '"1"'), ("Infinity", "Infinity"), ("1e999", "1e999"), ("S16_LE", "S16_LE")],
)  # fmt: skip
def test_a_value_is_a_number_a_constant_or_a_text(text, value):
    (case,) = read_cases(None, matrix_of([f"x={text}"]))
    assert case == {"x": value}
    assert type(case["x"]) is type(value)


def test_files_and_a_matrix_are_multiplied(tmp_path):
    (tmp_path / "cases.csv").write_text('rate,what\n8000,"a,b"\n\n48000,\n')
    points = matrix_of(["seed=1,2"])
    cases = list(read_cases(tmp_path / "cases.csv", points))
    assert cases[0] == {"rate": 8000, "what": "a,b", "seed": 1}
    assert cases[-1] == {"rate": 48000, "what": "", "seed": 2}
    assert len(cases) == count_cases(tmp_path / "cases.csv", points) == 4


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("cases.csv", b"a,b\n1\n", "cases.csv:2: 1 values"),
        ("cases.jsonl", b'{"a": 1}\n[1]\n', "cases.jsonl:2: "),
        ("cases.csv", b"a\n1\n" + bytes(1 << 18), "cases.csv:3: field larger"),
        ("cases.csv", b"a" * (1 << 18), "cases.csv:1: field larger"),
        ("cases.jsonl", b'{"a": NaN}', "cases.jsonl:1: "),
        ("cases.jsonl", b'{"a": -1e999}', "cases.jsonl:1: "),
        ("cases.jsonl", b"[" * 100_000, "cases.jsonl:1: "),
        ("cases.jsonl", b"\xff", "not text"),
    ],
)
def test_what_is_no_case_is_refused_with_its_place(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        list(read_cases(tmp_path / name, {}))
