"""The guest's sound on a host's sound server: recorded, judged and timed; and the server killed halfway."""

import os
import re
import time

import numpy as np
import pytest

from devices.audio.host.backend import HostAudio
from devices.audio.host.card import load_portaudio
from devices.audio.latency import LATENCY
from devices.audio.pcm import FORMATS, PcmParams
from emu.analysis import Sound, analyse, read_wav
from emu.timing.clock import HostClock
from tests.guest.pulse import RATE, PulseServer
from tests.guest.test_sound import song_disk

S16_STEREO = PcmParams(FORMATS["S16"], RATE, 2)
TONE = 997


def tone(seconds: float) -> bytes:
    """A sine at -6 dBFS, with triangular dither, so that 16 bits add noise but no distortion."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (2, round(seconds * RATE))).sum(axis=0)
    sine = 16384 * np.sin(2 * np.pi * TONE / RATE * np.arange(round(seconds * RATE)))
    return np.repeat(np.rint(sine + noise).astype("<i2"), 2).tobytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = PulseServer(tmp_path_factory.mktemp("pulse"))
    server.start()
    before = dict(os.environ)
    os.environ.update(server.environment)
    yield server
    os.environ.clear()
    os.environ.update(before)
    server.kill()


@pytest.fixture
def open_host(server):
    """Make the backend, with as much latency as a test can bear, because other processes keep this one waiting."""
    sounddevice = load_portaudio()  # only once the packages are known to be there
    if server.process is None:
        server.start()
    sounddevice._terminate()
    sounddevice._initialize()  # it may have started with another server, or none
    hosts = []

    def open_host(latency):
        hosts.append(HostAudio(latency=latency))
        return hosts[-1]

    yield open_host
    for host in hosts:
        host.close()


def cut(heard, margin=2400):
    """The sound without the silence around it, and without its beginning and end."""
    loud = np.flatnonzero(np.abs(heard[:, 0]) > 0.01)
    return heard[loud[0] + margin : loud[-1] - margin]


def judge(frames, rate=RATE):
    return analyse(Sound(np.ascontiguousarray(frames), rate, 32), TONE)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("load", ["", "(while :; do :; done) & "], ids=["idle", "busy"])
@pytest.mark.parametrize("latency", [0.05, LATENCY, 0.2])
def test_a_tone_is_heard_pure_and_without_defects(boot, server, open_host, tmp_path, seconds, latency, load):
    host = open_host(latency)
    guest = boot(audio=host, clock="host", disks=[song_disk(tmp_path, S16_STEREO, tone(seconds))])
    ear = server.ear()
    guest.ok(f"{load}aplay -q -D hw:0,0 /dev/vda")
    guest.machine.run_for(0.3)
    heard = cut(ear.stop())
    assert len(heard) > (seconds - 0.2) * RATE
    report = judge(heard)
    print(report, host.stats)
    assert report.faults(max_drift=5, max_thd_n=-80) == []
    assert (host.stats.gaps, host.stats.skips, host.stats.vanished) == (0, 0, 0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ppm", [100, -100])
def test_drift_is_corrected_inaudibly(boot, server, open_host, tmp_path, seconds, ppm):
    """The machine's clock is off, so the listener hears the tone off pitch; frames are inserted and dropped."""
    host = open_host(0.2)
    clock = HostClock(lambda: round(time.monotonic_ns() * (1 + ppm * 1e-6)))
    guest = boot(audio=host, clock=clock, disks=[song_disk(tmp_path, S16_STEREO, tone(seconds))])
    ear = server.ear()
    guest.ok("aplay -q -D hw:0,0 /dev/vda")
    guest.machine.run_for(0.3)
    heard = cut(ear.stop())
    report = judge(heard)
    print(report, host.stats)
    assert report.faults(max_drift=105, max_thd_n=-80) == []
    assert (host.stats.gaps, host.stats.skips, host.stats.vanished) == (0, 0, 0)


@pytest.mark.parametrize(
    ("period", "options"), [(480, "--period-size=480 --buffer-size=4800"), (6000, "")], ids=["10 ms", "aplay's own"]
)
def test_latency_is_at_most_80_ms_and_the_guest_is_told_so(boot, server, open_host, tmp_path, period, options):
    host = open_host(0.05)
    told, began = [], []

    def observe(period):
        now = time.monotonic()
        if not began:
            began.append(now - period.size / S16_STEREO.frame_size / RATE)
        told.append(host._outputs[-1].latency_bytes / S16_STEREO.frame_size / RATE)

    host.observe = observe
    guest = boot(audio=host, clock="host", disks=[song_disk(tmp_path, S16_STEREO, tone(3))])
    ear = server.ear(timed=True)
    guest.ok(f"aplay -q -D hw:0,0 {options} /dev/vda")
    guest.machine.run_for(0.3)
    heard = ear.stop()
    first = int(np.flatnonzero(np.abs(heard[:, 0]) > 0.001)[0])  # 0.001 is reached within the first frames
    latency = ear.time_of(first) - began[0]
    print(f"from the guest's time to the ear {latency * 1e3:.1f} ms; told {np.median(told) * 1e3:.1f} ms")
    assert 0 < latency <= 0.080
    assert abs(np.median(told) - latency) <= period / RATE


def test_a_server_that_is_killed_comes_back_and_the_guest_does_not_notice(boot, server, open_host, tmp_path):
    host = open_host(0.2)
    guest = boot(audio=host, clock="host", disks=[song_disk(tmp_path, S16_STEREO, tone(7))])
    guest.ok("echo 7 > /proc/asound/card0/pcm0p/xrun_debug")
    before = guest.machine.sound.stats[0].underruns
    machine = guest.machine
    machine.console.sendline("time aplay -q -D hw:0,0 /dev/vda; echo over=$?")
    machine.run_for(2)
    server.kill()
    machine.run_for(1)
    server.start()
    returned = time.monotonic()
    ear = server.ear()
    assert machine.run_until(lambda: np.abs(ear.heard()).max(initial=0) > 0.1, timeout=2.0)
    print(f"heard again after {time.monotonic() - returned:.2f} s")
    machine.console.expect("over=0", timeout=20)
    guest.find_shell()
    ear.stop()
    seconds = float(re.search(rb"real\s+0m ?([\d.]+)s", machine.console.since(0))[1])
    assert 7.0 <= seconds < 7.3
    assert machine.sound.stats[0].underruns == before
    assert "underrun" not in guest.ok("dmesg")
    assert host.stats.vanished == 1


def test_the_guest_records_what_the_host_hears(boot, server, open_host, tmp_path):
    host = open_host(0.2)
    disk = tmp_path / "recording.wav"
    disk.write_bytes(bytes(8 << 20))
    guest = boot(audio=host, clock="host", disks=[str(disk)])
    seconds = np.arange(12 * RATE) / RATE
    mouth = server.mouth(np.repeat(0.5 * np.sin(2 * np.pi * TONE * seconds)[:, None], 2, axis=1))
    guest.machine.run_for(0.5)
    guest.ok("arecord -q -D hw:0,0 -f S32_LE -r 48000 -c 2 -d 6 > /dev/vda; sync")
    mouth.terminate()
    mouth.wait()
    guest.machine.close()
    heard = cut(read_wav(disk).frames.astype(np.float64) / 2**31)
    assert len(heard) > 5.5 * RATE
    report = judge(heard)
    print(report, host.stats)
    assert report.faults(max_drift=20, max_thd_n=-80) == []
