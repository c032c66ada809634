"""emu/analysis/periods.py: lateness and drift from the log that devices/audio/periodlog.py writes."""

import pytest

from devices.audio.base import Period as DevicePeriod
from devices.audio.null import NullSink
from devices.audio.periodlog import PeriodLog
from devices.errors import UsageError
from emu.analysis import Period, describe_periods, read_log

PERIOD_NS = 10_000_000


def periods(lateness, *, ppm=0.0, direction="playback", start=5 * 10**17):
    """One period after another, with a guest clock ``ppm`` too fast, long after the epoch."""
    result = []
    for number, late in enumerate(lateness, 1):
        due = start + number * PERIOD_NS
        host = round((due + late - start) / (1 + ppm / 1e6))
        result.append(Period(0, direction, due, due + late, 10**18 + host, 1920, 3840))
    return result


def test_what_the_device_logs_is_read(tmp_path):
    path = tmp_path / "out.jsonl"
    log = PeriodLog(NullSink(), path)
    log.observe(DevicePeriod("capture", 1, 1000, 1002, 16, 48))
    log.close()
    (period,) = read_log(path)
    assert (period.stream, period.direction, period.due_ns, period.done_ns) == (1, "capture", 1000, 1002)
    assert (period.bytes, period.fill, period.lateness_ns) == (16, 48, 2)


def test_lateness():
    (statistics,) = describe_periods(periods([*range(1000, 101_000, 1000)]))
    assert (statistics.periods, statistics.early) == (100, 0)
    assert (statistics.median, statistics.p99, statistics.max) == (50_500, 100_000, 100_000)


def test_early_periods_are_counted():
    (statistics,) = describe_periods(periods([5, -1, 0, -7]))
    assert statistics.early == 2
    assert "2 early" in str(statistics)


@pytest.mark.parametrize("ppm", [-50.0, 0.0, 0.5, 100.0])
def test_drift_of_guest_against_host(ppm):
    (statistics,) = describe_periods(periods([(7 * n) % 5 * 20_000 for n in range(1000)], ppm=ppm))
    assert statistics.guest_drift == pytest.approx(ppm, abs=0.05)


def test_the_speed_under_warp_is_not_drift():
    (statistics,) = describe_periods(periods([0] * 100, ppm=187e6))
    assert str(statistics).endswith("; guest time against host time 188.0 to 1")


def test_drift_needs_some_periods():
    (statistics,) = describe_periods(periods([0, 0]))
    assert statistics.guest_drift is None


def test_pauses_break_the_cadence():
    first, second = periods([0] * 10), periods([0] * 10, start=5 * 10**17 + 10**9)
    assert describe_periods(first)[0].breaks == 0
    assert describe_periods(first + second)[0].breaks == 1


def test_the_rate_of_bytes_does_not_count_pauses():
    log = periods([0] * 10) + periods([0] * 10, start=5 * 10**17 + 10**9)
    assert describe_periods(log)[0].byte_rate == pytest.approx(192_000, rel=1e-9)
    assert describe_periods(log[:1])[0].byte_rate is None


def test_streams_are_described_apart():
    both = describe_periods([*periods([1]), *periods([2], direction="capture")])
    assert [(each.direction, each.max) for each in both] == [("playback", 1), ("capture", 2)]
    assert describe_periods([]) == []


GOOD = '{"stream": 0, "direction": "playback", "due_ns": 1, "done_ns": 2, "host_ns": 3, "bytes": 4, "fill": 5}\n'


def test_an_unfinished_line_is_ignored(tmp_path):
    (tmp_path / "log").write_text(GOOD + GOOD[:30])
    assert len(read_log(tmp_path / "log")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.encode() + b"nonsense\n", "line 2: not JSON"),
        (b"[]\n", "line 1: a whole number 'stream' is missing"),
        (GOOD.replace('"playback"', "1").encode(), "a string 'direction' is missing"),
        (GOOD.replace("4", "true").encode(), "a whole number 'bytes' is missing"),
        (b"\xff\n", "it is not text"),
    ],
)
def test_what_is_not_a_log(tmp_path, content, message):
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_log(tmp_path / "log")


def test_a_log_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_log(tmp_path / "log")
