"""Whatever was done to the sound device before, the next sound is heard exactly.

The environment variable PYEMU_ABUSE sets the number of times (20; 200 for a soak).
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.studio import S16_STEREO, Studio, aplay, heard, noise, studio

TIMES = int(os.environ.get("PYEMU_ABUSE", "20"))
ROOT = Path(__file__).parents[2]
SMALL = "--period-size=480 --buffer-size=3840"
DRIVER = "/sys/bus/virtio/drivers/virtio_snd"


@pytest.fixture(scope="module")
def guest(guest_files, tmp_path_factory) -> Iterator[Studio]:
    with studio(guest_files, tmp_path_factory.mktemp("abuse")) as guest:
        yield guest


def assert_next_sound_is_exact(guest: Studio, seed: int) -> None:
    guest.tape.take()
    frames = noise(S16_STEREO, 5001, seed)
    guest.play(S16_STEREO, frames)
    assert heard(guest.tape.take(), S16_STEREO) == frames


def load_long(guest: Studio) -> bytes:
    frames = noise(S16_STEREO, 20 * 48000, 7)
    guest.load(frames)
    return frames


def test_open_and_close(guest):
    """Opened, prepared and closed, without a sound and with the shortest one possible."""
    guest.load(noise(S16_STEREO, 10))
    silent = aplay(S16_STEREO, 40).replace("/dev/vda", "/dev/null")
    guest.tape.take()
    guest.ok(f"for i in $(seq {TIMES}); do {silent} && {aplay(S16_STEREO, 40)} || exit; done")
    sounds = [heard([sound], S16_STEREO) for sound in guest.tape.take()]
    assert sounds == [b"", noise(S16_STEREO, 10)] * TIMES  # without a sound there is a period of silence
    assert_next_sound_is_exact(guest, 1)


def test_pause_and_resume_loses_nothing(guest):
    """aplay -i pauses at a typed space and resumes at the next: nothing is lost, repeated or silenced."""
    machine = guest.machine
    frames = noise(S16_STEREO, (TIMES + 5) * 4800)
    guest.load(frames)
    guest.tape.take()
    began, printed, random_ms = machine.clock.now(), machine.console.printed, random.Random(3)
    machine.console.sendline(f"{aplay(S16_STEREO, len(frames), f'-i {SMALL}')}; echo ended''_$?")
    assert machine.run_until(lambda: guest.tape.played > 0)
    for _ in range(TIMES):
        for milliseconds in (200, random_ms.randrange(30, 100)):  # aplay looks for keys every 10 ms
            machine.console.send(" ")
            machine.run_for(milliseconds / 1000)
    assert machine.run_until(lambda: b"ended_" in machine.console.since(printed))
    guest.find_shell()
    assert machine.clock.now() - began > len(frames) // 4 / 48000 * 1e9 + TIMES * 150e6
    assert heard(guest.tape.take(), S16_STEREO) == frames
    assert guest.machine.sound.stats[0].underruns == 0


def test_aplay_is_killed_at_random_instants(guest):
    frames = load_long(guest)
    instants = random.Random(1)
    for number in range(TIMES):
        load_long(guest)
        guest.tape.take()
        command = aplay(S16_STEREO, len(frames), SMALL)
        microseconds = instants.randrange(400_000)
        guest.run(f"{command} & usleep {microseconds}; kill -9 $!; wait $! 2>/dev/null")
        for sound in guest.tape.take():
            assert frames.startswith(bytes(sound.data))
        assert_next_sound_is_exact(guest, number)


def test_arecord_is_killed_at_random_instants(guest):
    instants = random.Random(2)
    guest.tape.source = noise(S16_STEREO, 9600, 3)
    for _ in range(TIMES):
        guest.run(
            f"arecord -q -D hw:0,0 -f dat {SMALL} /dev/null & usleep {instants.randrange(400_000)};"
            " kill -9 $!; wait $! 2>/dev/null"
        )
        assert guest.record(S16_STEREO, 9600) == guest.tape.source


def test_aplay_is_stopped_and_goes_on(guest):
    """ALSA's buffer runs dry meanwhile: aplay says so, and starts again."""
    frames = load_long(guest)
    command = aplay(S16_STEREO, 48000 * 4, SMALL)
    guest.excused = re.compile(rb"XRUN: ")
    text = guest.ok(f"({command} & usleep 300000; kill -STOP $!; usleep 300000; kill -CONT $!; wait $!)")
    assert "underrun" in text
    first, *_ = guest.tape.take()  # another one for each restart
    assert frames.startswith(bytes(first.data))
    assert_next_sound_is_exact(guest, 2)


@pytest.mark.parametrize("playing", [False, True], ids=["idle", "in the middle of a sound"])
def test_the_driver_is_unbound_and_bound(guest, playing):
    """Unbinding waits until nobody has the card open; it resets the device."""
    for number in range(max(2, TIMES // 5)):
        frames = load_long(guest)
        command = f"{aplay(S16_STEREO, len(frames), SMALL)} >/dev/null 2>&1 & usleep {50_000 + 7_777 * number};"
        guest.run(
            (command if playing else "")
            + f" echo virtio0 > {DRIVER}/unbind; {'wait $!;' if playing else ''} echo virtio0 > {DRIVER}/bind"
        )
        assert_next_sound_is_exact(guest, number)


def test_the_emulator_is_stopped_and_goes_on(guest_files, tmp_path):
    """SIGSTOP and SIGCONT, on the host's clock, in the middle of a sound: guest time stands still meanwhile."""
    frames = noise(S16_STEREO, 3 * 48000)
    song, out = tmp_path / "song", tmp_path / "out.wav"
    song.write_bytes(frames)
    command = [sys.executable, "-m", "emu", "boot", *guest_files, "--disk", f"{song},readonly", "--audio", f"wav:{out}"]
    command += ["--exec", aplay(S16_STEREO, len(frames), SMALL)]
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as pyemu:
        while not out.exists() or out.stat().st_size <= 50_000:
            time.sleep(0.02)
        for seconds in (0.3, 1.0, 2.0):
            pyemu.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, pyemu.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # all of its threads
            size = out.stat().st_size
            time.sleep(seconds)
            assert out.stat().st_size == size
            pyemu.send_signal(signal.SIGCONT)
            time.sleep(0.2)
        text, _ = pyemu.communicate()
    assert pyemu.returncode == 0, text
    assert b"underrun" not in text
    assert out.read_bytes().split(b"data", 1)[1][4:].rstrip(b"\0") == frames
