"""devices/audio/periodlog.py: a line for each period, as it completes."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from devices.audio import NullSink, PeriodLog
from devices.errors import UsageError
from tests.devices.virtio.sound.guest import START, Guest, noise

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_each_period(path):
    log = PeriodLog(NullSink(), path)
    guest = Guest(log)
    guest.open(stream=0)
    guest.open(stream=1)
    guest.send(noise(1, 16), noise(2, 8))
    guest.offer(16, 16, 16)
    guest.command(START, 0)
    guest.command(START, 1)
    guest.run(40_000)
    guest.clock.advance(50_000)  # the machine is late: the first two are due
    guest.run(1_000_000)
    log.close()
    records = lines(path)
    assert [(r["direction"], r["stream"], r["bytes"], r["fill"]) for r in records] == [
        ("playback", 0, 16, 8),
        ("capture", 0, 16, 32),
        ("playback", 0, 8, 0),
        ("capture", 0, 16, 16),
        ("capture", 0, 16, 0),
    ]
    start = guest.started
    assert [r["due_ns"] - start for r in records] == [83_334, 83_334, 125_000, 166_667, 250_000]
    assert [r["done_ns"] - start for r in records] == [90_000, 90_000, 125_000, 166_667, 250_000]
    host = [r["host_ns"] for r in records]
    assert host == sorted(host)
    assert log.played == 6


def test_the_backend_is_as_it_was(path):
    class Sink(NullSink):
        closed = False

        def summary(self):
            return ["a line"]

        def close(self):
            self.closed = True

    sink = Sink(streams=(2, 3))
    log = PeriodLog(sink, path)
    assert (log.streams, log.summary(), log.played) == ((2, 3), ["a line"], 0)
    log.close()
    log.close()
    assert sink.closed


@pytest.mark.parametrize("name", ["", "no/such/directory", "a\0b"])
def test_a_path_that_cannot_work_is_told_at_once(tmp_path, name):
    with pytest.raises(UsageError, match="cannot write the record of periods to"):
        PeriodLog(NullSink(), f"{tmp_path}/{name}")


def test_a_full_disk_is_told_once_and_the_guest_plays_on(path, caplog):
    log = PeriodLog(NullSink(), path)
    guest = Guest(log)
    guest.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        guest.send(*(noise(i, 16) for i in range(200)))
        guest.command(START)
        guest.run(200_000_000)
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(guest.done) == 200
    assert len(caplog.records) == 1
    assert "the record of periods ends here" in caplog.text


def test_a_process_that_forgets_to_close_it_loses_nothing(path):
    script = f"""
import devices.audio, sys
from devices.audio import NullSink, PeriodLog, Period
assert "json" not in sys.modules
PeriodLog(NullSink(), {str(path)!r}).observe(Period("capture", 1, 2, 3, 4, 5))
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    [record] = lines(path)
    assert (record["stream"], record["due_ns"], record["done_ns"], record["fill"]) == (1, 2, 3, 5)
