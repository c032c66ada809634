"""Records in a file for a trace viewer: Perfetto (ui.perfetto.dev) or chrome://tracing.

The format is Chrome's trace events as a JSON array, one event per line. A process is a machine, a thread is a track;
times are guest time in microseconds, with the host's among the arguments. The format allows the closing bracket to be
missing, as it is when pyemu is killed: the file is then complete up to its last line.
"""

import json
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from devices.errors import UsageError
from emu.trace.record import CATEGORIES, Detail, Record

__all__ = ["TraceFile"]

logger = logging.getLogger(__name__)

#: Records held before they are formatted: in bulk that costs half as much, yet at most half a millisecond.
_BATCH = 64
#: Bytes held before they are written.
_ENOUGH = 64 << 10


class TraceFile:
    """The file ``path``, to which records are written. Raises UsageError if that is impossible.

    If writing fails later (a full disk), there is one warning.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._records: list[Record] = []
        self._waiting = bytearray()
        self._tracks: dict[tuple[int, str], int] = {}
        self._separator = b"[\n"
        try:
            self._file = self.path.open("wb", buffering=0)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot write the trace to {path}: {reason}") from error

    def __call__(self, record: Record) -> None:
        """Take a record, to be written soon."""
        self._records.append(record)
        if len(self._records) >= _BATCH:
            self._describe_records()

    def _describe_records(self) -> None:
        for record in self._records:
            self._describe_record(record)
        self._records.clear()
        if len(self._waiting) >= _ENOUGH:
            self._write()

    def _describe_record(self, record: Record) -> None:
        machine, track = record.machine, record.track
        tid = self._tracks.get((machine, track)) or self._begin_track(machine, track, record.category)
        where = f'"pid":{machine},"tid":{tid}'
        head = f'{{"name":{json.dumps(record.name)},"cat":"{record.category}",{where}'
        arguments = "".join(
            f'"{key}":{json.dumps(value) if isinstance(value, str) else value},' for key, value in record.detail.items()
        )
        arguments = f'{{{arguments}"host_ms":{_us(record.host // 1000)}}}'
        if record.span is None:
            self._add(f'{head},"ph":"i","s":"t","ts":{_us(record.time)},"args":{arguments}}}')
            return
        since, until = record.span
        self._add(f'{head},"ph":"X","ts":{_us(since)},"dur":{_us(until - since)},"args":{arguments}}}')
        if record.name.endswith("period"):
            self._complete_period(record, where)

    def _complete_period(self, record: Record, where: str) -> None:
        """Mark when a period was completed, besides when it was due, and plot its lateness and the queue."""
        completed = f'"pid":{record.machine},"ts":{_us(record.time)}'
        self._add(f'{{"name":"completed","cat":"{record.category}",{where},"ph":"i","s":"t","ts":{_us(record.time)}}}')
        for what, unit, key in (("queue", "bytes", "fill"), ("late", "us", "late_us")):
            name = f"{record.track} {what}"
            self._add(f'{{"name":"{name}","ph":"C",{completed},"args":{{"{unit}":{record.detail[key]}}}}}')

    def _begin_track(self, machine: int, track: str, category: str) -> int:
        """Give a track its number, name and place among the others: by category, then in order of appearance.

        Perfetto sorts by number, chrome://tracing by index.
        """
        numbers = [tid for (known, _), tid in self._tracks.items() if known == machine]
        tid = 100 * (1 + list(CATEGORIES).index(category))
        while tid in numbers:
            tid += 1
        self._tracks[machine, track] = tid
        if not numbers:
            self._describe("process_name", machine, 0, {"name": "machine"})  # viewers add its number
        self._describe("thread_name", machine, tid, {"name": track})
        self._describe("thread_sort_index", machine, tid, {"sort_index": tid})
        if not numbers:  # viewers count time from the first event: make that time 0, on any track
            self._add(f'{{"name":"power on","ph":"i","s":"t","pid":{machine},"tid":{tid},"ts":0.000}}')
        return tid

    def _describe(self, name: str, pid: int, tid: int, arguments: Detail) -> None:
        self._add(json.dumps({"name": name, "ph": "M", "pid": pid, "tid": tid, "args": arguments}))

    def _add(self, event: str) -> None:
        self._waiting += self._separator
        self._waiting += event.encode()
        self._separator = b",\n"

    def _write(self) -> None:
        data, self._waiting = memoryview(bytes(self._waiting)), bytearray()
        if self._file.closed:
            return
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            logger.warning("%s: %s; the trace ends here", self.path, error.strerror or error)
            self._file.close()

    def close(self) -> None:
        """Write what is left, and the closing bracket."""
        if not self._file.closed:
            self._describe_records()
            self._waiting += b"[\n]\n" if self._separator == b"[\n" else b"\n]\n"
            self._write()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03}"
