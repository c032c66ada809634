"""A guest traced while it plays and records: every period is there, in its place, and nothing else changes."""

import json
from itertools import pairwise

from emu import Record, Trace, TraceFile, WavSink

PERIOD = 1024  # frames


def test_a_file_has_every_period_of_a_sound_where_it_belongs(boot, tmp_path):
    path = tmp_path / "trace.json"
    with TraceFile(path) as file:
        guest = boot(trace=Trace(file), audio=WavSink(tmp_path / "out.wav"))
        guest.ok(f"aplay -q -D hw:0,0 --period-size={PERIOD} --buffer-size={4 * PERIOD} /root/tone.wav")
        played = guest.machine.counters
    events = json.loads(path.read_text())
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"hart 0", "sbi", "timer", "irq 1 virtio-sound", "virtio0 sound", "snd control", "playback 0"} <= set(
        tracks.values()
    )
    on_stream = [event for event in events if tracks.get(event.get("tid")) == "playback 0"]
    periods = [event for event in on_stream if event["name"].endswith("period")]
    assert len(periods) == played.periods == 47  # of 48000 frames, the last one padded
    for before, after in pairwise(periods):
        assert after["ts"] == round(before["ts"] + before["dur"], 3)
    assert {round(period["dur"]) for period in periods} == {round(PERIOD / 48000 * 1e6)}
    completions = [event["ts"] for event in on_stream if event["name"] == "completed"]
    assert all(
        done >= round(period["ts"] + period["dur"], 3) for done, period in zip(completions, periods, strict=True)
    )
    [running] = [event for event in on_stream if event["name"] == "running"]
    assert running["ts"] <= periods[0]["ts"]
    assert periods[-1]["ts"] + periods[-1]["dur"] <= running["ts"] + running["dur"] + 0.01
    plotted = [event["args"]["bytes"] for event in events if event["name"] == "playback 0 queue"]
    assert len(plotted) == len(periods)


def test_each_period_is_an_interrupt_that_the_guest_serves(boot):
    records: list[Record] = []
    guest = boot(trace=Trace(records.append, "snd,virtio,plic"))
    guest.ok(f"aplay -q -D hw:0,0 --period-size={PERIOD} --buffer-size={4 * PERIOD} /root/tone.wav")
    periods = [record for record in records if record.name.endswith("period")]
    served = [record for record in records if (record.track, record.name) == ("irq 1 virtio-sound", "in service")]
    for period in periods[:-1]:  # the last one ends the sound
        assert any(0 <= one.time - period.time < 20_000_000 for one in served)
    times = [record.time for record in records]
    assert times == sorted(times)
    requests = [(record.name, record.detail["status"]) for record in records if record.track == "snd control"]
    assert requests[-5:] == [
        ("PCM_SET_PARAMS", "OK"), ("PCM_PREPARE", "OK"), ("PCM_START", "OK"), ("PCM_STOP", "OK"), ("PCM_RELEASE", "OK"),
    ]  # fmt: skip


def test_a_stream_that_alsa_stops_because_the_application_is_late_is_traced(boot):
    records: list[Record] = []
    guest = boot(trace=Trace(records.append, "snd"))
    sound = "head -c 48000 /dev/zero"
    guest.run(f"({sound}; sleep 1; {sound}) | aplay -q -D hw:0,0 -f cd -t raw --buffer-size=4096")
    told = [record for record in records if record.track == "playback 0" and record.name != "period"]
    assert [record.name for record in told] == ["prepared", "started", "running", "released"] * 2
    assert told[2].span[1] + 100_000_000 < told[5].time


def test_recording_is_traced_as_well(boot):
    records: list[Record] = []
    guest = boot(trace=Trace(records.append, "snd"))
    guest.ok("arecord -q -D hw:0,0 -f S16_LE -r 48000 -c 2 -d 1 /tmp/in.wav")
    periods = [record for record in records if record.track == "capture 0" and record.name.endswith("period")]
    assert len(periods) == guest.machine.counters.periods > 0
