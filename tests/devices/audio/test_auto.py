"""devices/audio/auto.py: the host's devices once they are found, and one line if there are none."""

import threading

import pytest

from devices.audio.auto import AutoAudio
from devices.audio.null import NullSink
from devices.audio.pcm import FORMATS, PcmParams
from devices.errors import UsageError
from tests.devices.virtio.sound.guest import Recorder

S16 = PcmParams(FORMATS["S16"], 48000, 2)
NEVER = 1e6


class Host:
    """Devices that are found when the test wants."""

    def __init__(self, backend):
        self.backend = backend
        self.looked_for = threading.Event()
        self.there = threading.Event()

    def find(self):
        self.looked_for.set()
        self.there.wait()
        if isinstance(self.backend, Exception):
            raise self.backend
        return self.backend


class Live(Recorder):
    closed = False
    gains = None

    def set_gains(self, playback, capture):
        self.gains = playback, capture

    def close(self):
        if self.state == "stopped":
            super().close()
        else:
            self.closed = True


@pytest.fixture
def host():
    return Host(Live(part_ns=1))


@pytest.fixture
def auto(host):
    auto = AutoAudio(host.find, latency=0.05, soon=NEVER)
    yield auto
    host.there.set()
    auto.close()


def find(auto, host):
    host.there.set()
    auto._thread.join()


def test_nothing_is_looked_for_before_the_guest_wants_to_play(auto, host):
    assert not host.looked_for.is_set()
    auto.open_playback(0, S16)
    host.looked_for.wait()


def test_nothing_is_looked_for_before_the_guest_wants_to_record(auto, host):
    auto.open_capture(0, S16)
    host.looked_for.wait()


def test_after_a_while_the_device_is_looked_for_in_any_case(host):
    auto = AutoAudio(host.find, latency=0.05, soon=0.0)
    host.looked_for.wait()
    find(auto, host)
    assert auto.backend is host.backend
    auto.close()
    assert host.backend.closed


def test_a_sound_goes_on_where_it_is_when_the_device_is_found(auto, host):
    port = auto.open_playback(0, S16)
    port.start()
    port.write(b"1111")
    assert auto.played == 1
    find(auto, host)
    port.write_part(b"2222")
    port.write(b"3333")
    assert host.backend.state == "started"
    assert host.backend.data == b"22223333"
    host.backend.latency_bytes = 8
    assert port.latency_bytes == 8
    port.stop()
    port.close()
    assert host.backend.state == "closed"


def test_a_recording_is_silence_until_the_device_is_found(auto, host):
    port = auto.open_capture(0, S16)
    port.start()
    assert port.read(8) == bytes(8)
    find(auto, host)
    assert any(port.read(8))
    port.skip(8)
    port.stop()
    port.close()
    assert host.backend.captures[0].position == 16


def test_a_volume_set_meanwhile_reaches_the_host(auto, host):
    auto.set_gains((0.5, 0.5), (1.0, 1.0))
    auto.open_playback(0, S16)
    find(auto, host)
    assert host.backend.gains == ((0.5, 0.5), (1.0, 1.0))
    auto.set_gains((0.1, 0.1), (1.0, 1.0))
    assert host.backend.gains == ((0.1, 0.1), (1.0, 1.0))


@pytest.mark.parametrize("error", [UsageError("no device"), RuntimeError("no device")])
def test_without_a_device_it_is_null_and_says_so_once(error, caplog):
    host = Host(error)
    auto = AutoAudio(host.find, latency=0.05, soon=NEVER)
    for _ in range(3):
        port = auto.open_playback(0, S16)
        port.start()
        port.write(b"1111")
        port.stop()
        port.close()
    find(auto, host)
    assert auto.played == 3
    assert isinstance(auto.backend, NullSink)
    assert [record.message for record in caplog.records] == ["the guest's sound is not heard: no device"]
    auto.close()


def test_nothing_is_reported_for_a_guest_that_makes_no_sound(caplog):
    host = Host(UsageError("no device"))
    host.there.set()
    auto = AutoAudio(host.find, latency=0.05, soon=0.0)
    host.looked_for.wait()
    auto.close()
    auto._thread.join()
    assert not caplog.records


def test_a_device_that_is_found_after_the_end_is_closed(host):
    auto = AutoAudio(host.find, latency=0.05, soon=NEVER)
    auto.open_playback(0, S16)
    host.looked_for.wait()
    closing = threading.Thread(target=auto.close)
    closing.start()
    host.there.set()
    closing.join()
    auto._thread.join()
    assert host.backend.closed
