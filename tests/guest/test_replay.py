"""The default guest, recorded and replayed: whatever came from outside, the same run, to the bit."""

import os

import pytest

from devices.audio import NullSink
from devices.audio.base import Capture, Playback
from emu import Machine
from tests.benchmarks.replay import interactive, replay


@pytest.mark.parametrize("seed", [3, 8])
def test_a_session_typed_at_random_moments(tmp_path, seed):
    """Console, WAV file and disk; with windows, the monitor and C-c in between."""
    recorded = interactive(tmp_path, seed)
    again, said = replay(tmp_path)
    assert again == recorded
    assert "this was the same run as" in said


class LivePlayback(Playback):
    """Wants parts, and tells of a latency that is different each time."""

    part_ns = 3_000_000

    @property
    def latency_bytes(self) -> int:
        return 4 * int.from_bytes(os.urandom(1))

    def write(self, data):
        pass


class LiveCapture(Capture):
    """A microphone."""

    def read(self, size):
        return os.urandom(size)

    def skip(self, size):
        pass


class Live(NullSink):
    """A sound card, whose sound nobody can repeat."""

    def open_playback(self, stream, params):
        return LivePlayback()

    def open_capture(self, stream, params):
        return LiveCapture()


def test_what_was_recorded_live_is_recorded_again(guest_files, tmp_path):
    path = tmp_path / "run"
    with Machine(*guest_files, clock="warp", audio=Live(), record=path) as machine:
        status, output = machine.console.run(
            "arecord -q -D hw:0,0 -f S32_LE -c 2 -r 48000 -d 1 /tmp/in.wav & "
            "aplay -q -D hw:0,0 /root/tone.wav; wait; md5sum /tmp/in.wav"
        )
        assert status == 0, output
        printed, now = machine.console.since(0), machine.clock.now()
        machine.switch_off()
    with Machine(*guest_files, clock="warp", replay=path) as machine:
        machine.run()
        assert (machine.console.since(0), machine.clock.now()) == (printed, now)
    assert path.stat().st_size < 48000 * 8 * 1.5
