"""The default guest under the warp clock: the same run every time, to the bit."""

from devices.audio import WavSink
from tests.benchmarks.repeat import busy, session
from tests.guest.test_sound import S16_STEREO, ramp, song_disk


def test_a_run_repeats_itself_whatever_the_host_does(tmp_path):
    """Guest time, console, sound, disk and trace; beside other processes, and without the native part."""
    alone = session(tmp_path)
    with busy(2):
        assert session(tmp_path) == alone


def test_and_without_the_native_part(tmp_path, monkeypatch):
    with_it = session(tmp_path)
    monkeypatch.setenv("PYEMU_NATIVE", "off")
    assert session(tmp_path) == with_it


def test_another_seed_is_another_run_that_repeats_itself(tmp_path):
    first, again, other = (session(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.console != other.console
    assert first.disk != other.disk


def test_each_seed_has_a_timing_of_its_own_in_which_all_works(boot, tmp_path):
    """Answers and interrupts come later, the CPU is faster or slower; no sound and no sector suffers."""
    frames, written = ramp(2 * 48000 + 1234), 100 * 4096
    guest_times = set()
    for seed in (1, 2, 3):
        sink, image = WavSink(tmp_path / f"out{seed}.wav"), tmp_path / f"disk{seed}.img"
        image.write_bytes(bytes(written))
        song = song_disk(tmp_path, S16_STEREO, frames)
        guest = boot(audio=sink, disks=[song, str(image)], clock="warp", seed=seed)
        guest.ok("echo 7 > /proc/asound/card0/pcm0p/xrun_debug")
        guest.ok("aplay -q -D hw:0,0 --period-size=480 --buffer-size=1920 /dev/vda & "
                 "dd if=/dev/zero bs=4k count=100 | tr '\\0' x | dd of=/dev/vdb bs=4k; sync; wait $!")  # fmt: skip
        guest_times.add(guest.machine.clock.now())
        guest.machine.close()
        played = sink.files[0].path.read_bytes().split(b"data", 1)[1][4:]
        assert played[: len(frames)] == frames
        assert not any(played[len(frames) :])  # ALSA pads the last period with silence
        assert image.read_bytes() == b"x" * written
    assert len(guest_times) == 3
