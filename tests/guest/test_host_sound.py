"""The guest's sound on a host's sound server, heard with that server's own tools; and the server killed meanwhile.

Its lateness, and how it fares at low latency, depend on the host's other work: see tests/benchmarks/host.
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from devices.audio.pcm import FORMATS, PcmParams
from emu.analysis import Sound, analyse
from tests.guest.pulse import RATE, PulseServer
from tests.guest.test_sound import song_disk

ROOT = Path(__file__).parents[2]
S32_STEREO = PcmParams(FORMATS["S32"], RATE, 2)
TONE = 997
HOST = "host,latency=1s"  # the maximum: nothing here is about latency


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PulseServer]:
    server = PulseServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def pyemu(server: PulseServer, guest_files: tuple[Path, Path]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """``pyemu(*options)`` boots the guest with this server as the host's sound."""
    with ExitStack() as running:

        def start(*options: object) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "emu", "boot", *guest_files, "-a", "quiet", *options]
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env=server.whole_environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield start


def sine(seconds: float) -> "np.ndarray":
    """A sine at -6 dBFS, an array (frame, channel)."""
    samples = 0.5 * np.sin(2 * np.pi * TONE / RATE * np.arange(round(seconds * RATE)))
    return np.repeat(samples[:, None], 2, axis=1)


def tone_disk(folder: Path, seconds: float) -> str:
    return song_disk(folder, S32_STEREO, np.rint(sine(seconds) * 2**31).astype("<i4").tobytes())


def the_tone(frames: "np.ndarray") -> "np.ndarray":
    """The tone's frames, without the first and last 0.1 s."""
    loud = np.flatnonzero(np.abs(frames[:, 0]) > 0.01)
    assert len(loud), "nothing was heard"
    return np.ascontiguousarray(frames[loud[0] + RATE // 10 : loud[-1] - RATE // 10])


def faults(frames: "np.ndarray") -> list[str]:
    """What is wrong with the tone: pitch, purity, clicks, dropouts."""
    return analyse(Sound(frames, RATE, 32), TONE).faults(max_drift=20, max_thd_n=-80)


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():  # pytest's timeout says if that never comes
        time.sleep(0.02)


def test_a_tone_is_heard_pure_and_whole(server, pyemu, tmp_path):
    ear = server.ear()
    guest = pyemu("--audio", HOST, "--disk", tone_disk(tmp_path, 6), "--exec", "aplay -q -D hw:0,0 /dev/vda; sleep 1.5")
    output, error = guest.communicate()
    assert (guest.returncode, error) == (0, b""), output
    heard = the_tone(ear.stop())
    assert abs(len(heard) - 5.8 * RATE) < 0.01 * RATE
    assert faults(heard) == []


def test_with_a_device_sound_is_heard_by_default(server, pyemu, tmp_path):
    ear = server.ear()
    guest = pyemu("--disk", tone_disk(tmp_path, 4), "--exec", "aplay -q -D hw:0,0 /dev/vda")
    assert guest.communicate()[0]
    assert guest.returncode == 0
    assert len(the_tone(ear.stop())) > 2 * RATE


def test_a_server_that_is_killed_comes_back_and_the_guest_does_not_notice(server, pyemu, tmp_path):
    ear, folder = server.ear(), tmp_path / "shared"
    folder.mkdir()
    listen = (
        "echo 7 > /proc/asound/card0/pcm0p/xrun_debug; "
        "while ! test -e /mnt/heard; do aplay -q -D hw:0,0 /dev/vda || exit; done; ! dmesg | grep -i xrun"
    )
    guest = pyemu("--audio", HOST, "--disk", tone_disk(tmp_path, 4), "--share", folder, "--exec", listen)
    wait_for(lambda: np.abs(ear.heard()).max(initial=0) > 0.4)
    server.kill()
    ear.stop()
    server.start()
    ear = server.ear()
    wait_for(lambda: np.abs(ear.heard()).max(initial=0) > 0.4)
    (folder / "heard").touch()
    output, error = guest.communicate()
    ear.stop()
    assert guest.returncode == 0, output
    *said, summary = [line for line in error.decode().splitlines() if line.startswith("pyemu: ")]
    assert said == [
        "pyemu: warning: the sound device default is gone; the guest carries on without until it is back",
        "pyemu: warning: sound output is back: default",
    ]
    # On a host that is busy for a second, there are gaps, too.
    assert re.fullmatch("pyemu: host sound: (1 gap, |[0-9]+ gaps, )?the device was gone once", summary)


def test_the_guest_records_what_the_host_hears(server, pyemu, tmp_path):
    disk = tmp_path / "recording"
    disk.write_bytes(bytes(8 * RATE * 10))
    mouth = server.mouth(sine(30))
    record = "arecord -q -D hw:0,0 -t raw -f FLOAT_LE -r 48000 -c 2 -d 6 > /dev/vda; sync"
    guest = pyemu("--audio", HOST, "--disk", disk, "--exec", record)
    output, error = guest.communicate()
    mouth.terminate()
    mouth.wait()
    assert (guest.returncode, error) == (0, b""), output
    heard = the_tone(np.fromfile(disk, "<f4").reshape(-1, 2))
    assert len(heard) > 4 * RATE
    assert faults(heard) == []
