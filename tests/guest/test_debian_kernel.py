"""Debian's own riscv64 kernel (6.12), which nobody here configured: the same sounds, and the mixer."""

import re
from collections.abc import Iterator

import pytest

from devices.audio import Loopback, PcmParams
from devices.audio.pcm import FORMATS
from emu.machine import Machine
from tests.guest import debian
from tests.guest.studio import S16_STEREO, Studio, aplay, arecord, heard, noise, studio

CASES = [
    PcmParams(FORMATS[name], rate, channels)
    for name, rate, channels in (
        ("S16", 48000, 2),
        ("U8", 8000, 1),
        ("S8", 11025, 3),
        ("S24_3", 96000, 2),
        ("S24", 44100, 6),
        ("FLOAT", 44100, 2),
        ("FLOAT64", 192000, 4),
        ("S16", 48000, 8),
        ("U32", 22050, 5),
        ("S32", 384000, 2),
    )
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return debian.files(tmp_path_factory.mktemp("debian"), print)


@pytest.fixture(scope="module")
def guest(files, tmp_path_factory) -> Iterator[Studio]:
    with studio(files, tmp_path_factory.mktemp("studio"), append=debian.APPEND) as guest:
        yield guest


def test_it_is_debians(guest):
    assert re.search(r"Linux version 6\.12\.\S+-riscv64 .*debian", guest.machine.console.since(0).decode())


def test_boots_in_seconds(files, tmp_path):
    """A block takes 10 ns, or a bit more."""
    with studio(files, tmp_path, append=debian.APPEND) as guest:
        assert guest.machine._engine.blocks < 1_000_000_000


@pytest.mark.parametrize("params", CASES, ids=str)
def test_playback(guest, params):
    frames = noise(params, round(0.4 * params.rate) + 1)
    guest.play(params, frames)
    assert heard(guest.tape.take(), params) == frames


@pytest.mark.parametrize("params", CASES, ids=str)
def test_capture(guest, params):
    count = round(0.4 * params.rate) + 1
    guest.tape.source = noise(params, count)
    assert guest.record(params, count) == guest.tape.source


def test_duplex(files, tmp_path):
    frames = noise(S16_STEREO, 30001)
    with studio(files, tmp_path, append=debian.APPEND, audio=Loopback(480)) as guest:
        guest.load(frames)
        guest.ok(f"{arecord(S16_STEREO, 96000)} & sleep 0.1; {aplay(S16_STEREO, len(frames))} && wait $!")
        before, found, after = guest.recorded(S16_STEREO, 96000).partition(frames)
    assert found
    assert not any(before + after)


@pytest.mark.parametrize("frames", [1, 100, 5999, 6000, 6001, 24001])
def test_sounds_of_any_length_are_heard_once(guest, frames):
    for seed in (1, 2):
        sound = noise(S16_STEREO, frames, seed)
        guest.play(S16_STEREO, sound, "--period-size=6000 --buffer-size=24000")
        assert heard(guest.tape.take(), S16_STEREO) == sound


def test_a_long_sound_in_small_periods(guest):
    """Since 6.7, Linux queues a period once it is filled, and so runs out of messages where 6.1 repeats old ones."""
    frames = noise(S16_STEREO, 5 * 48000)
    guest.play(S16_STEREO, frames, "--period-size=480 --buffer-size=3840")
    assert heard(guest.tape.take(), S16_STEREO) == frames


def test_volume_and_mute(guest):
    controls = guest.machine.sound.controls
    before = [control.values for control in controls]
    guest.ok("amixer -q -D hw:0 sset Master 50%,25% && amixer -q -D hw:0 sset Capture 10 nocap")
    assert [control.values for control in controls] == [(50, 25), (1, 1), (10, 10), (0, 0)]
    text = guest.ok("amixer -D hw:0 sget Master")
    assert "Front Left: Playback 50 [50%] [-25.00dB] [on]" in text
    assert "Front Right: Playback 25 [25%] [-37.50dB] [on]" in text
    guest.ok("amixer -q -D hw:0 sset Master mute")
    assert controls.gains(0, 2) == [0.0, 0.0]
    guest.ok(
        "alsactl -f /tmp/state store && amixer -q -D hw:0 sset Master 100% unmute && alsactl -f /tmp/state restore"
    )
    assert [control.values for control in controls][:2] == [(50, 25), (0, 0)]
    guest.ok("amixer -q -D hw:0 sset Master 100% unmute && amixer -q -D hw:0 sset Capture 100% cap")
    assert [control.values for control in controls] == before


def test_a_change_on_the_hosts_side_is_noticed(guest):
    guest.ok("alsactl monitor hw:0 > /tmp/seen & sleep 0.2")
    guest.machine.sound.controls.set("Master Playback Switch", (0, 0))
    text = guest.ok("sleep 0.2; kill $!; cat /tmp/seen; amixer -D hw:0 sget Master")
    assert "Master Playback Switch" in text
    assert "Front Left: Playback 100 [100%] [0.00dB] [off]" in text
    guest.machine.sound.controls.set("Master Playback Switch", (1, 1))


def test_a_jack_is_unplugged(guest):
    guest.machine.sound.jacks.plug("line", connected=False)
    assert re.search(r"name='Line Out Jack'.*\n.*\n\s+: values=off", guest.ok("amixer -D hw:0 contents"))
    guest.machine.sound.jacks.plug("line", connected=True)


def test_the_driver_is_unbound_and_bound_in_the_middle_of_a_sound(guest):
    driver = "/sys/bus/virtio/drivers/virtio_snd"
    frames = noise(S16_STEREO, 20 * 48000)
    for number in range(3):
        guest.load(frames)
        guest.run(
            f"{aplay(S16_STEREO, len(frames))} >/dev/null 2>&1 & usleep {300_000 + 7_777 * number};"
            f" echo virtio0 > {driver}/unbind; wait $!; echo virtio0 > {driver}/bind"
        )
        guest.tape.take()
        guest.play(S16_STEREO, frames[: 4 * 5001])
        assert heard(guest.tape.take(), S16_STEREO) == frames[: 4 * 5001]


def test_hvc0_as_the_console(files):
    """Typed ahead of its driver, which discards what comes while it starts."""
    with Machine(*files, append=f"{debian.APPEND} console=hvc0", clock="warp") as machine:
        machine.hvc.resize(100, 30)
        machine.console.sendline("stty size; cat /sys/class/tty/console/active")
        machine.console.expect("\n30 100\r\nttyS0 hvc0\r\n")
        assert machine.console.run("echo out") == (0, "out\n")
