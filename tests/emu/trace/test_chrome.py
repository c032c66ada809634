"""The trace file is what viewers expect: JSON, each event as the format defines it, complete at every moment."""

import json
import logging

import pytest

from devices.errors import UsageError
from emu.trace import Record, TraceFile

PERIOD = Record(
    5_250_000,
    "snd",
    "playback 0",
    "period",
    {"late_us": 250.0, "bytes": 16, "fill": 48},
    (1_000_001, 5_000_000),
    7_000_000,
)


@pytest.fixture
def written(tmp_path):
    """Write records; return the events then in the file."""

    def write(*records: Record) -> list[dict]:
        with TraceFile(tmp_path / "trace.json") as file:
            for record in records:
                file(record)
        return json.loads((tmp_path / "trace.json").read_text())

    return write


def of_kind(events: list[dict], phase: str) -> list[dict]:
    return [event for event in events if event["ph"] == phase and event["name"] != "power on"]


def test_an_instant(written):
    [event] = of_kind(written(Record(1_234_567, "sbi", "sbi", "set_timer", {"in_us": 1.5}, None, 2_000_000)), "i")
    assert event == {
        "name": "set_timer", "cat": "sbi", "ph": "i", "s": "t", "pid": 1, "tid": 600, "ts": 1234.567,
        "args": {"in_us": 1.5, "host_ms": 2.0},
    }  # fmt: skip


def test_a_span_is_a_slice(written):
    [event] = of_kind(written(Record(9_000, "run", "hart 0", "running", {}, (1_000, 9_000))), "X")
    assert (event["ts"], event["dur"]) == (1.0, 8.0)


def test_a_period_ends_when_it_is_due_and_shows_when_it_was_completed(written):
    events = written(PERIOD)
    [period], [completed] = of_kind(events, "X"), of_kind(events, "i")
    assert (period["name"], period["ts"], period["dur"]) == ("period", 1000.001, 3999.999)
    assert (completed["name"], completed["ts"], completed["tid"]) == ("completed", 5250.0, period["tid"])
    assert [(event["name"], event["args"]) for event in of_kind(events, "C")] == [
        ("playback 0 queue", {"bytes": 48}),
        ("playback 0 late", {"us": 250.0}),
    ]


def test_each_track_gets_a_name_and_place_before_its_first_event(written):
    first = Record(0, "run", "hart 0", "waiting", {}, (0, 0))
    events = written(first, PERIOD, first, Record(1, "snd", "playback 1", "started", {}))
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {700: "hart 0", 100: "playback 0", 101: "playback 1"}
    described = [event["tid"] for event in events if event["ph"] == "M"]
    happened = [event["tid"] for event in events if event["ph"] in "Xi"]
    assert described == [0, 700, 700, 100, 100, 101, 101]
    assert happened == [700, 700, 100, 100, 700, 101]  # the first is power-on
    assert all(event["ph"] == "M" for event in events[:3])


def test_tracks_are_ordered_by_category_then_by_appearance(written):
    came = [("b", "sbi"), ("a", "sbi"), ("hart 0", "run"), ("irq 9", "plic"), ("irq 8", "plic"), ("playback 0", "snd")]
    events = written(*[Record(0, category, track, "happened", {}) for track, category in came])
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    places = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
    order = ["playback 0", "irq 9", "irq 8", "b", "a", "hart 0"]
    assert [names[tid] for tid in sorted(names)] == order  # to Perfetto
    assert [names[tid] for tid in sorted(places, key=places.get)] == order  # to chrome://tracing


def test_many_tracks_of_a_category_remain_apart(written):
    virtio = Record(0, "virtio", "virtio0 sound", "reset", {})
    events = written(virtio, *[Record(0, "snd", f"playback {n}", "started", {}) for n in range(101)])
    assert len({event["tid"] for event in events if event["name"] == "thread_name"}) == 102


def test_time_begins_when_a_machine_is_switched_on(written):
    """Viewers count from the earliest event."""
    events = written(PERIOD, PERIOD, PERIOD._replace(machine=2))
    power = [(event["pid"], event["tid"], event["ts"]) for event in events if event["name"] == "power on"]
    assert power == [(1, 100, 0), (2, 100, 0)]
    assert min(event["ts"] for event in events if "ts" in event) == 0


def test_a_machine_after_a_reset_is_another_process(written):
    events = written(PERIOD, PERIOD._replace(machine=2))
    assert [event["pid"] for event in events if event["name"] == "process_name"] == [1, 2]
    assert [(event["pid"], event["tid"]) for event in of_kind(events, "X")] == [(1, 100), (2, 100)]


def test_any_text_is_legal(written):
    name = 'quote " backslash \\ newline \n \x00 ü'
    events = written(Record(0, "snd", name, name, {"key": name}))
    assert [event["name"] for event in of_kind(events, "i")] == [name]


def test_nothing_happened(written):
    assert written() == []


def test_an_unclosed_file_has_whole_events_but_no_bracket(tmp_path):
    path = tmp_path / "trace.json"
    file = TraceFile(path)
    for _ in range(2000):
        file(PERIOD)
    text = path.read_text()
    assert len(json.loads(text + "]")) > 1000
    assert 2000 * len(json.dumps(PERIOD)) * 2 - len(text) < 1 << 20  # the rest, at most a buffer, is still held
    file.close()


def test_a_file_that_cannot_be_created_is_reported_at_once(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write the trace to .*: No such file or directory"):
        TraceFile(tmp_path / "nowhere" / "trace.json")


def test_a_full_disk_is_reported_once(caplog):
    file = TraceFile("/dev/full")
    with caplog.at_level(logging.WARNING):
        for _ in range(2000):
            file(PERIOD)
        file.close()
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/full: No space left on device; the trace ends here"
    ]
