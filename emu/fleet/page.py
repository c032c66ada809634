"""A sweep's results as one web page, in one file: what is known of each failure, and a coloured grid of all cases."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from emu.fleet.job import canonical
from emu.testing.evidence import draw

__all__ = ["write_page"]

#: More cells are no picture, and more failures no reading: the results' file has all of them.
_MOST_CELLS, _MOST_FAILURES, _MOST_PICTURES = 50_000, 500, 50


_NO_GRID = "<p>There are too many cases for a grid.</p>"
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; font-size: 13px; }
th { text-align: left; font-weight: normal; padding: 0 .8em 0 0; white-space: nowrap; }
td { width: 1.6em; height: 1.3em; border: 1px solid #fff; text-align: center; }
.passed { background: #3a9d5d; } .failed { background: #d1363c; } .failed a { color: #fff; text-decoration: none; }
.none { background: #eee; }
pre { background: #f5f5f5; padding: .7em; overflow-x: auto; font-size: 13px; }
details { border-left: 4px solid #d1363c; padding-left: 1em; margin: 1em 0; } summary { cursor: pointer; }
img { max-width: 100%; }
"""


def write_page(path: Path, name: str, records: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write ``records``, lines of a results file in ``folder``, to ``path``; raises UsageError if that cannot be done.

    Pictures of the sound need matplotlib.
    """
    cells: list[tuple[dict[str, Any], str, bool]] = []
    failures: list[Mapping[str, Any]] = []
    count = failed = 0
    for record in records:
        count += 1
        failed += not record["passed"]
        if count <= _MOST_CELLS:
            cells.append((record["case"], record["id"], record["passed"]))
        if not record["passed"] and failed <= _MOST_FAILURES:
            failures.append(record)
    shown = [_failure(record, folder, draw_it=number < _MOST_PICTURES) for number, record in enumerate(failures)]
    told = "" if failed <= _MOST_FAILURES else f"<p>The first {_MOST_FAILURES} of {failed:,} failures.</p>"
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(name)}</title><style>{_STYLE}</style>\n'
        f"<h1>{escape(name)}</h1>\n<p>{count:,} cases: {count - failed:,} passed, {failed:,} failed.</p>\n"
        f"{told}{''.join(shown)}{_grid(cells) if count <= _MOST_CELLS else _NO_GRID}</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _failure(record: Mapping[str, Any], folder: Path, *, draw_it: bool) -> str:
    error = record["error"]
    texts = {"": error["traceback"], "Console": record["console"], "Printed by the test": record["output"]}
    parts = [f"<p>{title}</p><pre>{escape(text.rstrip())}</pre>" for title, text in texts.items() if text]
    if record["repeat"]:
        parts.append(f"<p>To repeat it:</p><pre>{escape(record['repeat'])}</pre>")
    if record["sound"] is not None and draw_it:
        parts.append(_picture(folder / record["sound"]))
    return (
        f'<details open id="{escape(record["id"])}"><summary><b>{escape(canonical(record["case"]))}</b> '
        f"{escape(error['type'])}: {escape(error['message'])}</summary>{''.join(parts)}</details>\n"
    )


def _picture(sound: Path) -> str:
    """Return the sound as a picture, or a line that says why there is none."""
    line, picture = draw(sound), sound.with_suffix(".png")
    try:
        data = base64.b64encode(picture.read_bytes()).decode()
    except OSError:
        return f"<p>{escape(line)}</p>"
    return f'<p>Sound:</p><img alt="waveform and spectrogram" src="data:image/png;base64,{data}">'


def _grid(cells: Sequence[tuple[dict[str, Any], str, bool]]) -> str:
    """Return a table of all cases: what differs last from left to right, all else from top to bottom."""
    names = list(dict.fromkeys(name for case, _, _ in cells for name in case))
    across = names[-1] if len(names) > 1 else None
    rows: dict[str, dict[str, str]] = {}
    for case, id_, passed in cells:
        column = "" if across is None else _text(case.get(across, ""))
        row = " ".join(f"{name}={_text(case[name])}" for name in names if name in case and name != across)
        link = "" if passed else f'<a href="#{escape(id_)}">&times;</a>'
        kind = "passed" if passed else "failed"
        title = escape(canonical(case), quote=True)
        old = rows.setdefault(row, {}).get(column, "")
        if not (passed and "failed" in old):  # several seeds may share a place
            rows[row][column] = f'<td class="{kind}" title="{title}">{link}</td>'
    columns = sorted({column for row in rows.values() for column in row}, key=_order)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{escape(row)}</th>{''.join(found.get(column, _NONE) for column in columns)}</tr>\n"
        for row, found in sorted(rows.items(), key=lambda pair: [_order(word) for word in pair[0].split()])
    )
    return f"<table><tr><th>{escape(across or '')}</th>{head}</tr>\n{body}</table>\n"


_NONE = '<td class="none"></td>'


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical({"": value})[4:-1]


def _order(text: str) -> tuple[str, float, str]:
    """Numbers by size, after the name that they belong to."""
    name, _, value = text.rpartition("=")
    try:
        return name, float(value), ""
    except ValueError:
        return name, float("inf"), value
