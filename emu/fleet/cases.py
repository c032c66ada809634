"""The cases of a sweep as people write them: in a file, or as lists of what each argument may be."""

import csv
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from devices.errors import UsageError

__all__ = ["count_cases", "matrix_of", "parse_case", "read_cases"]


def matrix_of(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Understand texts like ``rate=8000,48000``; raises UsageError."""
    points: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--matrix {text} makes no sense; write it like rate=8000,48000")
        points.setdefault(name, []).extend(_value(value) for value in values.split(","))
    return points


def parse_case(text: str) -> dict[str, Any]:
    """Understand a case as JSON; raises UsageError."""
    try:
        case = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        case = None
    if not isinstance(case, dict):
        raise UsageError(f'{text[:60]!r} is no case; write it like {{"rate": 48000}}')
    return case


def read_cases(path: Path | None, points: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield each case of the file ``path``, if any, at each point of the matrix; raises UsageError."""
    for case in iter([{}]) if path is None else _rows(path):
        for values in itertools.product(*points.values()):
            yield {**case, **dict(zip(points, values, strict=True))}


def count_cases(path: Path | None, points: Mapping[str, Sequence[Any]]) -> int:
    """Return how many ``read_cases`` yields; 0 if nobody knows, since a pipe can be read only once."""
    if path is not None and path.exists() and not path.is_file():
        return 0
    count = 1 if path is None else sum(1 for _ in _rows(path))
    for values in points.values():
        count *= len(values)
    return count


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            if path.suffix == ".csv":
                yield from _csv(path, file)
            else:
                yield from _json_lines(path, file)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text; give a .jsonl or .csv file of cases") from None


def _csv(path: Path, file: Iterator[str]) -> Iterator[dict[str, Any]]:
    rows = csv.reader(file)
    try:
        names = next(rows, [])
        for row in rows:
            if len(row) == len(names):
                yield {name: _value(text) for name, text in zip(names, row, strict=True)}
            elif row:
                raise UsageError(f"{path}:{rows.line_num}: {len(row)} values, and the first line names {len(names)}")
    except csv.Error as error:
        raise UsageError(f"{path}:{rows.line_num}: {error}") from error


def _json_lines(path: Path, file: Iterator[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                case = parse_case(line.strip())
            except UsageError as error:
                raise UsageError(f"{path}:{number}: {error}") from None
            yield case


def _value(text: str) -> Any:
    """Return the number, true, false or null that a text says it is, or else the text."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str | list | dict) else value


def _refuse(_constant: str) -> NoReturn:
    """NaN and the infinities equal nothing, or are no JSON."""
    raise ValueError


def _finite(text: str) -> float:
    """Refuse what is so large that it would be infinity."""
    value = float(text)
    if math.isinf(value):
        raise ValueError
    return value
