"""devices/audio/host/backend.py and its parts, on a PortAudio whose devices do what the test wants."""

import numpy as np
import pytest

from devices.audio.host.backend import HostAudio
from devices.audio.latency import LATENCY, parse_latency
from devices.audio.pcm import FORMATS, PcmParams
from devices.errors import UsageError
from emu.analysis import Sound, analyse
from emu.timing.clock import MOST_BEHIND_NS
from tests.devices.audio.host.fake_portaudio import FakePortAudio

FLOAT = PcmParams(FORMATS["FLOAT"], 48000, 2)
S16 = PcmParams(FORMATS["S16"], 48000, 2)
TONE = 997


def sine(frames, rate=48000, first=0):
    return 0.5 * np.sin(2 * np.pi * TONE / rate * (first + np.arange(frames)))


def stereo(samples):
    return np.repeat(samples[:, None], 2, axis=1).astype("<f4")


class Bench:
    """A host backend on a fake PortAudio, and a guest that plays and records at its own pace, a little late."""

    def __init__(self, linger=None, latency=0.05, step=0.005, **options):
        self.portaudio = FakePortAudio(**options)
        self.host = HostAudio(
            latency=latency,
            portaudio=self.portaudio,
            monotonic=lambda: self.portaudio.now,
            threads=False,
            linger=linger,
        )
        self._look_at, self._step = 0.0, step
        self._lateness = np.random.default_rng(1)
        self.latencies = []
        self.run(1.0)

    def run(self, seconds):
        """Let time pass while the threads do their work."""
        end = self.portaudio.now + seconds
        while self.portaudio.now < end:
            if self.portaudio.now >= self._look_at:
                self._look_at = self.portaudio.now + 0.25
                self.host.look_after()
            self.portaudio.run_until(min(self.portaudio.now + self._step, end))
            self.host.feed()

    def play(self, data, params=FLOAT, period=480, voice=None, stop=True, whole=False):
        """Play as a guest does, in periods, handed over ``whole`` or in parts; the last period need not be whole."""
        if voice is None:
            voice = self.host.open_playback(0, params)
            if self.host._look.is_set():
                self.host.look_after()
            voice.start()
        size = period * params.frame_size
        part = size if whole else voice.part_ns * params.rate // 10**9 * params.frame_size
        began = self.portaudio.now
        for first in range(0, len(data), size):
            last = min(first + size, len(data))
            for i in range(first, last, part):
                end = min(i + part, last)
                due = began + end / params.frame_size / params.rate
                self.run(max(due + self._lateness.exponential(0.0005) - self.portaudio.now, 0.0))
                (voice.write if end == first + size else voice.write_part)(data[i:end])
                self.host.feed()
            self.latencies.append(voice.latency_bytes / params.frame_size / params.rate)
        if stop:
            voice.stop()
        return voice

    def record(self, seconds, params=FLOAT, period=480, voice=None, still=0.0):
        """Record as a guest does; the machine stands still for ``still`` seconds in the middle."""
        if voice is None:
            voice = self.host.open_capture(0, params)
            self.run(0.3)
        voice.start()
        data = b""
        began = self.portaudio.now
        for i in range(0, round(seconds * params.rate), period):
            due = began + (i + period) / params.rate + (still if 2 * i > seconds * params.rate else 0.0)
            self.run(max(due + self._lateness.exponential(0.0005) - self.portaudio.now, 0.0))
            data += voice.read(period * params.frame_size)
            self.latencies.append(voice.latency_bytes / params.frame_size / params.rate)
        voice.stop()
        return data


def loud(frames, margin=0):
    where = np.flatnonzero(np.abs(frames[:, 0]) > 1e-3)
    return frames[where[0] + margin : where[-1] + 1 - margin]


def find(frames, sound):
    """The position of ``sound`` in ``frames``, bit for bit."""
    return frames.tobytes().find(sound.tobytes()) // (4 * frames.shape[1])


# Playing.


def test_without_drift_every_frame_is_heard_bit_for_bit():
    bench = Bench()
    sound = stereo(np.random.default_rng(2).uniform(-1, 1, 48000))
    bench.play(sound.tobytes())
    bench.run(0.5)
    assert find(bench.portaudio.heard(), sound) > 0
    assert bench.host.stats.gaps == bench.host.stats.skips == 0


@pytest.mark.parametrize(("block", "expected"), [(240, 0.050), (2400, 0.095)], ids=["little", "more than can be"])
def test_the_latency_is_as_requested_and_as_reported_to_the_guest(block, expected):
    bench = Bench(block=block)
    began = bench.portaudio.now
    click = np.zeros((48000, 2), "<f4")
    click[4800] = 0.5
    bench.play(click.tobytes())
    bench.run(0.5)
    heard_at = np.flatnonzero(bench.portaudio.heard()[:, 0])[0] / 48000 + bench.portaudio.delay  # since the first run
    latency = heard_at - (began - 1000.0) - 0.1
    assert latency == pytest.approx(expected, abs=0.006)
    assert abs(np.median(bench.latencies) - latency) < 0.002
    assert bench.host.stats.skips == 0


@pytest.mark.parametrize("ppm", [100, -100])
def test_drift_is_corrected_inaudibly(ppm):
    bench = Bench(ppm=ppm)
    bench.play(stereo(sine(60 * 48000)).tobytes(), period=2400)
    bench.run(0.5)
    report = analyse(Sound(loud(bench.portaudio.heard(), 2400), 48000, 32), TONE)
    assert report.faults(max_thd_n=-80) == []
    stats = bench.host.stats
    assert (stats.gaps, stats.skips, stats.lost_frames) == (0, 0, 0)
    assert stats.corrections > 50
    assert max(bench.latencies[10:]) - min(bench.latencies[10:]) < 0.010


@pytest.mark.parametrize("ppm", [100, -100])
def test_after_a_while_the_drift_is_known(ppm):
    # Ten minutes, of as little work as there can be: at 8 kHz, and handed over whole.
    bench = Bench(ppm=ppm, only_rate=8000, block=160, latency=0.2, step=0.02)
    bench.play(bytes(600 * 8000 * 8), FLOAT._replace(rate=8000), period=800, whole=True)
    assert bench.host.stats.drift_ppm == pytest.approx(ppm, abs=15)
    assert max(bench.latencies[1:]) - min(bench.latencies[1:]) < 0.010


@pytest.mark.parametrize("rate", [5512, 44100, 192000])
def test_other_rates_are_resampled(rate):
    bench = Bench()
    params = PcmParams(FORMATS["FLOAT"], rate, 2)
    bench.play(stereo(sine(3 * rate, rate)).tobytes(), params, period=rate // 20)
    bench.run(0.5)
    report = analyse(Sound(loud(bench.portaudio.heard(), 2400), 48000, 32), TONE)
    assert report.faults(max_drift=1, max_thd_n=-90) == []


def test_a_device_that_has_one_rate_only_is_resampled_to():
    bench = Bench(only_rate=44100)
    bench.play(stereo(sine(2 * 48000)).tobytes())
    bench.run(0.5)
    report = analyse(Sound(loud(bench.portaudio.heard(), 2400), 44100, 32), TONE)
    assert report.faults(max_drift=1, max_thd_n=-90) == []


def test_a_period_longer_than_the_ring_is_heard_whole():
    bench = Bench()
    sound = stereo(np.random.default_rng(2).uniform(-1, 1, 5 * 48000))
    bench.play(sound.tobytes(), period=5 * 48000).close()
    bench.run(0.5)
    assert find(bench.portaudio.heard(), sound) > 0
    assert bench.host._outputs == ()


def test_latency_does_not_depend_on_the_period():
    for period in (480, 6000, 48000):
        bench = Bench()
        bench.play(bytes(8 * 96000), period=period)
        assert 0.045 < min(bench.latencies) <= max(bench.latencies) < 0.060


def test_after_a_standstill_of_the_machine_sound_is_no_later_than_before():
    """It then hands over a long part of which only the end is in time."""
    bench = Bench()
    sound = stereo(np.random.default_rng(2).uniform(-1, 1, 48000))
    voice = bench.host.open_playback(0, FLOAT)
    voice.start()
    bench.run(1.0)
    voice.write_part(sound.tobytes())
    bench.play(sound[:4800].tobytes(), voice=voice)
    bench.run(0.5)
    assert max(bench.latencies) < 0.060
    assert find(bench.portaudio.heard(), np.concatenate((sound[-480:], sound[:4800]))) > 0
    assert bench.host.stats.lost_frames == 48000 - 480


def test_two_streams_are_mixed():
    bench = Bench()
    one, two = (bench.host.open_playback(number, FLOAT) for number in range(2))
    for value in (one, two):
        value.start()
        value.write(np.full((4800, 2), 0.25, "<f4").tobytes())
    bench.run(0.3)
    assert bench.portaudio.heard().max() == 0.5


def test_pause_and_resume_lose_no_frame():
    bench = Bench()
    sound = stereo(np.random.default_rng(2).uniform(-1, 1, 9600))
    voice = bench.play(sound[:4800].tobytes())
    bench.run(0.7)
    bench.play(sound[4800:].tobytes(), voice=voice)
    bench.run(0.5)
    heard = bench.portaudio.heard()
    assert 0 < find(heard, sound[:4800]) < find(heard, sound[4800:])
    assert bench.host.stats.gaps == 0


def heard_once(heard, sound, at_least=480):
    """Whether all of it was heard once: its beginning without a break, then silence, then the rest."""
    first = find(heard, sound[:at_least])
    last = find(heard, sound[-at_least:]) + at_least
    assert 0 < first < last
    beginning = (heard[first : first + len(sound)] == sound).all(axis=1).argmin()
    rest = (heard[last - len(sound) : last] == sound)[::-1].all(axis=1).argmin()
    return beginning + rest == len(sound)


@pytest.mark.parametrize("pause", [0.001, 0.012, 0.030, 0.7])
@pytest.mark.parametrize("before", [480, 2400, 4800])
def test_a_pause_within_a_message_loses_no_frame_and_changes_no_delay(before, pause):
    bench = Bench()
    sound = stereo(np.random.default_rng(2).uniform(-1, 1, 14400))
    voice = bench.play(sound[:4800].tobytes(), period=4800, stop=False)
    bench.play(sound[4800 : 4800 + before].tobytes(), voice=voice, period=9600)
    bench.run(pause)
    bench.play(sound[4800 + before :].tobytes(), voice=voice, period=9600 - before)
    bench.run(0.5)
    assert heard_once(bench.portaudio.heard(), sound)
    assert bench.host.stats.gaps == bench.host.stats.skips == 0
    # The sound stops and resumes at the card's buffers, of 5 ms, and is faded out and in, 2 ms each.
    assert abs(bench.latencies[-1] - bench.latencies[0]) < 0.012


def test_frames_of_a_message_that_is_not_played_to_its_end_are_not_heard():
    """How Linux 6.1 stops a sound: it queues a stale period and stops once that has begun."""
    bench = Bench()
    sound = stereo(np.random.default_rng(2).uniform(0.1, 0.2, 9600))
    voice = bench.play(sound.tobytes(), period=4800, stop=False)
    bench.play(stereo(np.full(480, -0.9)).tobytes(), period=4800, voice=voice)
    voice.close()
    bench.run(0.5)
    heard = bench.portaudio.heard()
    assert find(heard, sound) > 0
    assert heard.min() >= 0
    assert np.abs(np.diff(heard[:, 0])).max() < 0.15
    assert bench.host._outputs == ()
    assert bench.host.stats.played == 9600


def test_a_pause_within_a_message_that_is_resampled_loses_no_frame():
    bench = Bench(only_rate=44100)
    sound = stereo(np.ones(4800))
    voice = bench.play(sound.tobytes(), period=4800, stop=False)
    for _ in range(8):
        bench.play(sound[:2400].tobytes(), period=4800, voice=voice)
        bench.run(0.3)
        bench.play(sound[2400:].tobytes(), period=2400, voice=voice, stop=False)
    voice.stop()
    bench.run(0.3)
    assert bench.host.stats.gaps == 0
    leads = 9 * 96  # half of each fade, in and out
    assert bench.portaudio.heard()[:, 0].sum() == pytest.approx(9 * 4800 * 44100 / 48000 + leads, abs=10)


def test_a_sound_that_breaks_off_or_begins_far_from_silence_does_not_click():
    bench = Bench()
    bench.play(np.full((4800, 2), 0.5, "<f4").tobytes())
    bench.run(0.5)
    heard = bench.portaudio.heard()
    assert np.abs(np.diff(heard[:, 0])).max() < 0.02
    assert find(heard, np.full((4800, 2), 0.5, np.float32)) > 0


def test_a_guest_that_is_late_makes_a_gap_which_is_faded_and_counted():
    bench = Bench()
    voice = bench.host.open_playback(0, FLOAT)
    voice.start()
    for pause in [0.01] * 50 + [0.3] + [0.01] * 50:
        bench.run(pause)
        voice.write(np.full((480, 2), 0.5, "<f4").tobytes())
    bench.run(0.01)
    assert bench.host.stats.gaps == 1
    assert np.abs(np.diff(bench.portaudio.heard()[:, 0])).max() < 0.02


def test_what_the_machine_is_behind_and_catches_up_with_is_not_heard():
    """All the more does it have to be caught up with: given up, it would be missing from the latency from then on."""
    bench = Bench(latency=LATENCY)
    voice = bench.host.open_playback(0, FLOAT)
    voice.start()
    sound = stereo(sine(96000))
    began, stop = bench.portaudio.now, range(101, 102 + MOST_BEHIND_NS // 10_000_000)
    for period in range(200):
        due = stop[-1] if period in stop else period
        bench.run(max(began + due * 0.01 - bench.portaudio.now, 0.0))
        voice.write(sound[480 * period : 480 * (period + 1)].tobytes())
        bench.host.feed()
    voice.stop()
    bench.run(0.5)
    heard = loud(bench.portaudio.heard(), 2400)
    assert analyse(Sound(heard, 48000, 32), TONE).faults(max_thd_n=-80) == []
    assert (bench.host.stats.gaps, bench.host.stats.skips) == (0, 0)


def test_the_volume_changes_without_clicks():
    bench = Bench()
    voice = bench.play(np.full((4800, 2), 0.5, "<f4").tobytes())
    bench.host.set_gains((0.5, 0.0), (1.0, 1.0))
    bench.play(np.full((4800, 2), 0.5, "<f4").tobytes(), voice=voice)
    heard = bench.portaudio.heard()
    assert np.abs(np.diff(heard, axis=0)).max() < 0.02
    assert heard[-1].tolist() == [0.25, 0.0]


def test_a_clock_that_runs_far_too_fast_loses_sound_but_no_memory():
    bench = Bench()
    voice = bench.host.open_playback(0, FLOAT)
    voice.start()
    for _ in range(1000):
        voice.write(bytes(48000 * 8 // 10))
    assert voice.latency_bytes <= 2.2 * 48000 * 8
    assert bench.host.stats.lost_frames > 90 * 48000


# Devices that fail.


def test_a_device_that_vanishes_is_opened_again_when_it_returns(caplog):
    bench = Bench()
    voice = bench.play(stereo(sine(48000)).tobytes())
    bench.portaudio.broken = True
    bench.play(stereo(sine(3 * 48000)).tobytes(), voice=voice)
    assert (bench.host.stats.vanished, voice.latency_bytes) == (1, 0)
    assert "host sound: the device was gone once" in bench.host.summary()
    bench.portaudio.broken = False
    bench.play(stereo(sine(48000)).tobytes(), voice=voice)  # within this second
    assert np.abs(bench.portaudio.heard()).max() > 0.4
    bench.run(0.5)
    assert bench.portaudio.begun > 0
    assert [record.message for record in caplog.records] == [
        "the sound device default is gone; the guest carries on without until it is back",
        "sound output is back: default",
    ]


def test_a_device_that_stood_still_is_not_late_afterwards():
    bench = Bench()
    voice = bench.play(stereo(sine(48000)).tobytes())
    for stream in bench.portaudio.streams:
        stream.next += 0.4
    bench.play(stereo(sine(2 * 48000)).tobytes(), voice=voice)
    assert bench.host.stats.vanished == 0
    assert bench.host.stats.gaps + bench.host.stats.skips > 0
    assert bench.latencies[-1] < 0.12


def test_a_wild_device_is_closed_and_tried_again(caplog):
    bench = Bench()
    bench.portaudio.speed = 1000.0
    bench.run(0.5)
    assert bench.host.stats.wild == 1
    bench.portaudio.speed = 1.0
    bench.run(1.6)
    bench.play(stereo(sine(48000)).tobytes())
    assert np.abs(bench.portaudio.heard()).max() > 0.4
    assert "does not keep time" in caplog.records[0].message


def test_a_device_that_vanishes_repeatedly_is_not_reported_for_ever(caplog):
    bench = Bench()
    for _ in range(10):
        bench.portaudio.broken = True
        bench.run(3.5)
        bench.portaudio.broken = False
        bench.run(3.0)
    assert bench.host.stats.vanished == 10
    assert len(caplog.records) == 6
    assert bench.host.summary() == ["host sound: the device was gone 10 times"]


def test_a_callback_never_raises():
    bench = Bench()
    bench.host.open_playback(0, FLOAT)
    bench.host._outputs[0].mix = None
    bench.run(0.01)
    assert bench.host.stats.errors > 0
    assert not bench.portaudio.heard().any()


# Recording.


@pytest.mark.parametrize("ppm", [0, 100, -100])
def test_what_is_recorded_is_what_was_heard(ppm):
    bench = Bench(ppm=ppm)
    bench.portaudio.microphone = lambda first, count: stereo(sine(count, first=first))
    frames = np.frombuffer(bench.record(40, period=2400), "<f4").reshape(-1, 2)
    report = analyse(Sound(loud(frames, 2400), 48000, 32), TONE)
    assert report.faults(max_thd_n=-80) == []
    assert (bench.host.stats.gaps, bench.host.stats.skips) == (0, 0)
    assert 0.04 < min(bench.latencies[10:]) <= max(bench.latencies[10:]) < 0.06


@pytest.mark.parametrize(("latency", "skips"), [(0.05, 1), (1.0, 0)])
def test_a_machine_that_stood_still_has_no_gap_if_there_is_latency(latency, skips):
    bench = Bench(latency=latency)
    bench.portaudio.microphone = lambda first, count: stereo(sine(count, first=first))
    frames = np.frombuffer(bench.record(6.0, still=0.2), "<f4").reshape(-1, 2)
    assert (bench.host.stats.gaps, bench.host.stats.skips) == (0, skips)
    assert bool(analyse(Sound(loud(frames, 2400), 48000, 32), TONE).faults(max_thd_n=-80)) == bool(skips)


def test_recording_goes_on_after_a_pause_as_late_as_before():
    bench = Bench()
    bench.portaudio.microphone = lambda first, count: stereo(sine(count, first=first))
    voice = bench.host.open_capture(0, FLOAT)
    bench.run(0.3)
    for _ in range(2):
        bench.record(0.5, voice=voice)
        bench.run(10)
    assert 0.04 < bench.latencies[-1] < 0.06
    assert bench.host.stats.gaps == 0


def test_a_microphone_that_stood_still_is_not_late_afterwards():
    bench = Bench()
    bench.portaudio.microphone = lambda first, count: stereo(sine(count, first=first))
    voice = bench.host.open_capture(0, FLOAT)
    bench.record(0.5, voice=voice)
    for stream in bench.portaudio.streams:
        stream.next += 1.0
    bench.record(3.0, voice=voice)
    assert bench.host.stats.vanished == 0
    assert bench.latencies[-1] < 0.11


def test_without_a_microphone_there_is_silence_and_one_warning(caplog):
    bench = Bench(cards=[("default", 0, 2)])
    assert not any(bench.record(1.0))
    assert len(caplog.records) == 1
    assert "no sound input" in caplog.records[0].message


def test_the_microphone_is_open_only_while_the_guest_records():
    bench = Bench()
    assert len(bench.portaudio.streams) == 1
    voice = bench.host.open_capture(0, FLOAT)
    bench.record(0.5, voice=voice)
    assert len(bench.portaudio.streams) == 2
    voice.close()
    bench.run(0.5)
    assert len(bench.portaudio.streams) == 1
    assert bench.host.stats.opened == 2


# What the user asks for.


@pytest.mark.parametrize(("name", "number"), [("", 0), ("1", 1), ("usb", 1), ("HDMI 0", 2)])
def test_a_device_is_found_by_number_name_or_part_of_it(name, number):
    portaudio = FakePortAudio(cards=[("default", 2, 2), ("USB Headset", 1, 2), ("HDMI 0", 0, 8), ("HDMI 0b", 0, 8)])
    host = HostAudio(name, portaudio=portaudio, threads=False)
    assert host._specs["output"].number == number


@pytest.mark.parametrize(
    ("name", "message"),
    [("nonesuch", "no sound output 'nonesuch'.*pyemu audio list"), ("hdmi", "use the number")],
)
def test_a_name_that_fits_none_or_several(name, message):
    portaudio = FakePortAudio(cards=[("default", 2, 2), ("HDMI 0", 0, 8), ("HDMI 1", 0, 8)])
    with pytest.raises(UsageError, match=message):
        HostAudio(name, portaudio=portaudio, threads=False)


@pytest.mark.parametrize(("text", "seconds"), [("50ms", 0.05), ("20", 0.02), ("0.1s", 0.1), ("1s", 1.0)])
def test_latency(text, seconds):
    assert parse_latency(text) == seconds


@pytest.mark.parametrize("text", ["", "0ms", "2s", "5ms", "-1ms", "1e3", "fast"])
def test_latency_that_makes_no_sense(text):
    with pytest.raises(UsageError, match="latency="):
        parse_latency(text)


def test_host_without_a_device_is_refused():
    with pytest.raises(UsageError, match="no sound output"):
        HostAudio(portaudio=FakePortAudio(cards=[]), threads=False)


# A device that nobody asked for.


def test_with_linger_the_device_is_open_for_a_sound_and_for_some_time_after_it():
    bench = Bench(linger=2.0)
    assert not bench.portaudio.streams
    sound = stereo(np.random.default_rng(2).uniform(-1, 1, 9600))
    for opened in (1, 2):
        voice = bench.play(sound.tobytes())
        bench.run(1.0)
        voice.close()
        assert find(bench.portaudio.heard(), sound) > 0
        bench.run(1.5)
        assert len(bench.portaudio.streams) == 1
        bench.run(1.0)
        assert not bench.portaudio.streams
        assert bench.host.stats.opened == opened
    assert bench.host.summary() == []
