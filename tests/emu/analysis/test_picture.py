"""emu/analysis/picture.py: a PNG of the promised size, the same each time; and a hint where matplotlib is missing."""

import importlib.util
import struct

import numpy as np
import pytest

from devices.errors import MissingPackageError, UsageError
from emu.analysis import Period, analyse
from emu.analysis.picture import plot
from tests.emu.analysis.signals import noise, sound, tone

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib (the extra plot) is not installed"
)


def report(damaged=True):
    samples = tone(duration=0.5)
    if damaged:
        samples[9000] += 0.1
        samples[12000:12100] = 0
        samples = np.delete(samples, slice(18000, 18010))
    return analyse(sound(samples))


LOG = [Period(0, "playback", n * 10**7, n * 10**7 + (n * 7919) % 10**6 - 3000, n * 10**7, 1920, 0) for n in range(50)]


def size_of(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@needs_matplotlib
@pytest.mark.parametrize("log", [(), LOG], ids=["no log", "log"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_picture(tmp_path, damaged, log):
    plot(report(damaged), tmp_path / "a.png", log)
    assert size_of(tmp_path / "a.png") == (1200, 900)


@needs_matplotlib
def test_the_same_input_gives_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        plot(report(), tmp_path / name, LOG)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@needs_matplotlib
@pytest.mark.parametrize("frames", [0, 1, 2, 17])
def test_short_sounds(tmp_path, frames):
    plot(analyse(sound(*[tone()[:frames]] * 8)), tmp_path / "a.png")
    assert size_of(tmp_path / "a.png") == (1200, 900)


@needs_matplotlib
def test_repeats_are_drawn(tmp_path):
    frames = noise(0.2)
    frames[5000:6000] = frames[4000:5000]
    repeated = analyse(sound(frames[:, 0] / 32767))
    assert repeated.repeats
    plot(repeated, tmp_path / "a.png")
    assert size_of(tmp_path / "a.png") == (1200, 900)


@needs_matplotlib
@pytest.mark.parametrize("name", ["a.txt", "no/such/directory.png"])
def test_a_picture_that_cannot_be_written(tmp_path, name):
    with pytest.raises(UsageError, match=r"not a picture format|No such file"):
        plot(report(), tmp_path / name)


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pyemu-riscv\[plot\]'"):
        plot(report(), tmp_path / "a.png")
