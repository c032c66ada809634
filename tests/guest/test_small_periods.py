"""Buffers of two small periods, from the guest's first second on."""

import pytest

from devices.audio import WavSink
from tests.guest.test_sound import S16_STEREO, ramp, song_disk

FRAMES = ramp(round(2.5 * S16_STEREO.rate))


@pytest.mark.parametrize("clock", ["host", "warp"])
@pytest.mark.parametrize("period", [32, 100])
def test_nothing_goes_wrong_unreported(boot, tmp_path, period, clock):
    """A busy host may keep the guest from filling them in time: then ALSA or the counters must say so."""
    sink = WavSink(tmp_path / "out.wav")
    guest = boot(clock=clock, audio=sink, disks=[song_disk(tmp_path, S16_STEREO, FRAMES)])
    status, text = guest.run(f"aplay -q -D hw:0,0 --period-size={period} --buffer-size={2 * period} /dev/vda")
    counters = guest.machine.counters
    guest.machine.close()
    played = sink.files[0].path.read_bytes().split(b"data", 1)[1][4:].rstrip(b"\0")
    assert played == FRAMES.rstrip(b"\0") or status or "underrun" in text or counters.underruns or counters.repeats
