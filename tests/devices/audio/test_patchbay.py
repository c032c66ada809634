"""The patchbay passes everything on, lets Python play into the microphone, and makes copies."""

import json

import numpy as np
import pytest

from devices.audio import NullSink, PeriodLog, WavSink
from devices.audio.patchbay import Patchbay
from devices.audio.pcm import FORMATS, PcmParams
from devices.errors import UsageError
from tests.devices.virtio.sound.guest import SECOND, START, Guest, Recorder, noise

S16 = PcmParams(FORMATS["S16"], 48000, 1)


class Counter(NullSink):
    """Records 1, 2, 3 ...; its ports offer more than the contract requires."""

    def open_capture(self, stream, params):
        return Counting()


class Counting:
    latency_bytes = 6

    def __init__(self):
        self.value = 0

    def start(self):
        self.value = 0

    def read(self, size):
        first = self.value + 1
        self.value += size // 2
        return np.arange(first, self.value + 1, dtype=np.int16).tobytes()

    def skip(self, size):
        self.value += size // 2

    def stop(self):
        pass

    def close(self):
        pass


def samples(data: bytes) -> list[int]:
    return np.frombuffer(data, np.int16).tolist()


def test_what_is_played_arrives_and_is_counted(tmp_path):
    patchbay = Patchbay(WavSink(tmp_path / "out.wav"))
    port = patchbay.open_playback(0, S16)
    port.start()
    port.write(b"\1\0\2\0")
    port.stop()
    port.close()
    assert (patchbay.played, port.latency_bytes) == (2, 0)
    assert patchbay.frames.tolist() == [[1], [2]]
    assert patchbay.summary() == patchbay.backend.summary()
    patchbay.close()


def test_frames_behind_a_log_of_periods(tmp_path):
    patchbay = Patchbay(PeriodLog(WavSink(tmp_path / "out.wav"), tmp_path / "log"))
    assert patchbay.frames.shape == (0, 2)
    patchbay.close()


def test_what_is_said_replaces_what_would_be_recorded_meanwhile():
    patchbay = Patchbay(Counter())
    port = patchbay.open_capture(0, S16)
    assert samples(port.read(4)) == [1, 2]
    patchbay.play(np.array([100, 101, 102], np.int16))
    assert samples(port.read(4)) == [100, 101]
    assert samples(port.read(4)) == [102, 6]
    patchbay.play(np.array([103, 104, 105], np.int16))
    port.skip(4)
    assert samples(port.read(4)) == [105, 10]
    port.start()
    assert samples(port.read(2)) == [1]
    assert port.latency_bytes == 6


def test_it_is_said_to_the_first_stream_only():
    patchbay = Patchbay(NullSink(streams=(1, 2)))
    port = patchbay.open_capture(1, S16)
    patchbay.play(np.array([100], np.int16))
    assert samples(port.read(2)) == [0]


def test_a_tap_gets_a_copy_of_what_is_played_while_it_is_there(tmp_path):
    patchbay = Patchbay(NullSink())
    port = patchbay.open_playback(0, S16)
    port.write(b"\1\0")
    with_tap = WavSink(tmp_path / "tap.wav")
    patchbay.taps.append(with_tap)
    port.write(b"\2\0")
    patchbay.taps.remove(with_tap)
    port.write(b"\3\0")
    assert with_tap.frames.tolist() == [[2]]
    assert patchbay.played == 3
    with_tap.close()


def test_a_tap_gets_what_the_backend_keeps(tmp_path):
    """Parts of a message that may be cut short arrive when all of it is played, others at once."""

    class Tap:
        def __init__(self):
            self.data = []

        def record(self, _stream, _params, data):
            self.data.append(data)

    for part_ns, expected in ((None, [b"\1\0", b"\2\0", b"\3\0"]), (10_000_000, [b"\1\0\2\0\3\0"])):
        patchbay, tap = Patchbay(Recorder(part_ns=part_ns)), Tap()
        patchbay.taps.append(tap)
        port = patchbay.open_playback(0, S16)
        port.start()
        port.write_part(b"\1\0")
        port.write_part(b"\2\0")
        port.write(b"\3\0")
        assert tap.data == expected


def test_switching_is_for_the_sounds_that_begin_then(tmp_path):
    first, second = NullSink(), NullSink()
    patchbay = Patchbay(first)
    port = patchbay.open_playback(0, S16)
    assert patchbay.switch(second) is first
    port.write(b"\1\0")
    patchbay.open_playback(0, S16).write(b"\1\0\2\0")
    assert (first.played, second.played) == (1, 2)
    with pytest.raises(UsageError, match=r"\(1, 1\) streams"):
        patchbay.switch(NullSink(streams=(2, 1)))


def test_a_log_that_is_switched_to_has_the_periods_from_then_on(tmp_path):
    patchbay = Patchbay(NullSink())
    guest = Guest(patchbay)
    guest.open()
    guest.send(noise(1, 16))
    guest.command(START)
    guest.run(SECOND)
    log = PeriodLog(NullSink(), tmp_path / "log")
    patchbay.switch(log)
    guest.send(noise(2, 16), noise(3, 8))
    guest.run(SECOND)
    patchbay.close()
    assert [json.loads(line)["bytes"] for line in log.path.read_text().splitlines()] == [16, 8]


def test_what_is_switched_to_has_the_volume_of_the_guest():
    patchbay = Patchbay(NullSink())
    guest = Guest(patchbay)
    guest.device.controls.set("Master Playback Switch", 0)
    second = Recorder()
    patchbay.switch(second)
    guest.device.controls.set("Capture Switch", 0)
    assert second.gains == [([0, 0], [1, 1]), ([0, 0], [0, 0])]
