"""A song goes on in the WAV file of the machine that was saved in the middle of it: see devices/audio/wav.py."""

from devices.audio import WavSink
from emu import Machine
from tests.guest.test_sound import S16_STEREO, ramp, song_disk

PLAY = "aplay -q -D hw:0,0 /dev/vda; echo ov''er\n"


def test_the_wav_file_is_that_of_a_run_that_was_not_saved(boot, tmp_path):
    """In a new machine, after the saved one has played on and ended; and when a machine goes back."""
    first, second, saved = (tmp_path / name for name in ("out.wav", "out.2.wav", "song.pyemu"))
    frames = ramp(2 * 48000)
    guest = boot(audio=WavSink(first), disks=[song_disk(tmp_path, S16_STEREO, frames)])
    guest.ok("aplay -q -D hw:0,0 -t raw -f U8 -r 8000 -d 1 /dev/zero")  # a format, and a file, of its own
    with guest.machine as machine:
        before = machine.audio.played
        machine.console.send(PLAY)
        assert machine.run_until(lambda: machine.audio.played >= before + 40_000)
        machine.save(saved)
        so_far = machine.audio.played
        machine.console.expect("over")
        straight = first.read_bytes(), second.read_bytes()
        machine.console.send(PLAY)  # which no restored machine does
        machine.console.expect("over")
    assert frames in straight[1]
    assert len(second.read_bytes()) > len(straight[1])

    with Machine(saved, audio=f"wav:{first},continue", clock="warp") as machine:
        state = machine.snapshot()
        for _ in range(2):
            assert machine.audio.played == so_far
            assert len(second.read_bytes()) < len(straight[1])
            machine.console.expect("over")
            assert (first.read_bytes(), second.read_bytes()) == straight
            machine.restore(state)
        machine.console.expect("over")
    assert (first.read_bytes(), second.read_bytes()) == straight
    assert {path.name for path in tmp_path.glob("*.wav")} == {"out.wav", "out.2.wav", "song.wav"}
