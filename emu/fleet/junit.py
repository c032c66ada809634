"""A sweep's results as a JUnit report, which CI systems show."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from devices.errors import UsageError
from emu.fleet.job import canonical

__all__ = ["write_junit"]

#: What XML 1.0 has no way to write (2.2, Char).
_NO_CHARACTERS = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, name: str, records: Iterable[Mapping[str, Any]], tests: int, failures: int) -> None:
    """Write ``records``, lines of a results file, to ``path``; raises UsageError if that cannot be done."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n')
            file.write(f'<testsuite name={_attribute(name)} tests="{tests}" failures="{failures}">\n')
            for record in records:
                file.write(_case(name, record))
            file.write("</testsuite>\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _case(name: str, record: Mapping[str, Any]) -> str:
    title = _attribute(canonical(record["case"]))
    start = f'<testcase classname={_attribute(name)} name={title} time="{record["host_ns"] / 1e9:.3f}"'
    if record["passed"]:
        return f"{start}/>\n"
    error = record["error"]
    text = _text("\n".join((error["traceback"] or error["message"], f"to repeat it: {record['repeat']}")))
    return (
        f"{start}>\n<failure type={_attribute(error['type'])} message={_attribute(error['message'])}>{text}</failure>\n"
        f"<system-out>{_text(record['console'])}</system-out>\n<system-err>{_text(record['output'])}</system-err>\n"
        "</testcase>\n"
    )


def _text(text: str) -> str:
    return escape(_NO_CHARACTERS.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_NO_CHARACTERS.sub("\ufffd", text), {"\n": "&#10;"})
