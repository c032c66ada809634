"""pyemu audio list, and PortAudio being there or not."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from devices.audio.host import card
from devices.errors import MissingPackageError
from emu.cli.audio_list import list_devices
from tests.devices.audio.host.fake_portaudio import FakePortAudio

CARDS = [("default", 2, 2), ("USB Microphone", 1, 0), ("nothing", 0, 0), ("HDMI 0", 0, 8)]


def test_devices_are_listed_with_number_use_and_default(monkeypatch):
    monkeypatch.setattr(card, "load_portaudio", lambda: FakePortAudio(cards=CARDS))
    result = CliRunner().invoke(list_devices)
    assert result.output.splitlines() == [
        "  0  default  [ALSA; output and input]  (default output and input)",
        "  1  USB Microphone  [ALSA; input]",
        "  3  HDMI 0  [ALSA; output]",
    ]


def test_without_portaudio_it_says_what_to_install(monkeypatch):
    def missing():
        raise MissingPackageError("PortAudio is not installed: apt-get install libportaudio2")

    monkeypatch.setattr(card, "load_portaudio", missing)
    result = CliRunner().invoke(list_devices)
    assert (result.exit_code, "libportaudio2" in result.stderr) == (1, True)


def test_a_missing_library_is_a_missing_package():
    """Like the module sounddevice when it cannot load PortAudio."""
    script = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
sys.meta_path.insert(0, Finder())
from devices.audio.host.card import load_portaudio
from devices.errors import MissingPackageError
try:
    load_portaudio()
except MissingPackageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "apt-get install libportaudio2" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("api", "rate"), [("ALSA", 48000), ("Core Audio", 44100)])
def test_the_rate_is_the_devices_own_except_on_alsa_which_does_not_say(api, rate):
    assert card.find_card(FakePortAudio(api=api), "", "output").rate == rate
