"""emu/cli/audio.py: what ``pyemu audio`` says, and its exit status."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from emu.cli.audio import audio_group
from tests.emu.analysis.signals import RATE, sound, tone

ROOT = Path(__file__).parents[3]


def write(path, samples):
    file = WavFile(path, PcmParams(FORMATS["S16"], RATE, 1))
    file.append(sound(samples).frames.tobytes())
    file.close()
    return str(path)


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.wav", tone())


@pytest.fixture
def bad(tmp_path):
    return write(tmp_path / "bad.wav", np.delete(tone(), 50000))


def run(*arguments):
    """Status, stdout, stderr."""
    result = CliRunner().invoke(audio_group, arguments, standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.return_value if result.exception is None else result.exit_code, result.stdout, result.stderr


def test_a_clean_tone_is_fine(good):
    status, said, _ = run("check", good)
    assert status == 0
    assert "997.000 Hz, -1.00 dBFS, THD+N -9" in said
    assert said.endswith("\nfine\n")


def test_a_damaged_one_is_not(bad):
    status, said, _ = run("check", bad)
    assert status == 1
    assert "skip at frame 50000 (1.041667 s): 1.00 frames missing" in said
    assert said.endswith("\nnot fine: there are defects\n")


def test_against_the_original(good, bad):
    assert run("check", good, good) == (0, f"bit-exact: {2 * RATE} frames\nfine\n", "")
    status, said, _ = run("check", bad, good)
    assert status == 1
    assert said.startswith("not bit-exact: 1 difference")
    assert "frame 50000: 1 frame dropped" in said


@pytest.mark.parametrize(
    ("limits", "status", "fault"),
    [
        (["--tone", "997", "--max-drift", "1"], 0, ""),
        (["--tone", "997.1", "--max-drift", "10"], 1, "off by more than 10 ppm"),
        (["--max-thd-n", "-90"], 0, ""),
        (["--max-thd-n", "-100"], 1, "THD+N of channel 1 is above -100 dB"),
    ],
)
def test_limits(good, limits, status, fault):
    result = run("check", good, *limits)
    assert result[0] == status
    assert fault in result[1]


def test_where_a_tone_should_be(tmp_path):
    status, said, _ = run("check", write(tmp_path / "a.wav", np.zeros(100)), "--max-thd-n", "-90")
    assert status == 1
    assert "channel 1 is not a tone" in said


@pytest.mark.parametrize(("done", "status"), [(10, 0), (9, 1)])
def test_periods_must_not_be_early(tmp_path, good, done, status):
    log = tmp_path / "log.jsonl"
    period = {"stream": 0, "direction": "playback", "due_ns": 10, "done_ns": done, "host_ns": 3, "bytes": 4, "fill": 5}
    log.write_text(json.dumps(period) + "\n")
    result = run("check", good, "--log", str(log))
    assert result[0] == status
    assert f"playback 0: 1 period, {10 - done} early" in result[1]


def test_a_log_without_periods_says_nothing(tmp_path, good):
    (tmp_path / "log.jsonl").touch()
    status, said, _ = run("check", good, "--log", str(tmp_path / "log.jsonl"))
    assert status == 1
    assert said.endswith(f"\nnot fine: {tmp_path}/log.jsonl has no periods\n")


def test_a_file_that_cannot_be_read(tmp_path):
    status, said, error = run("check", str(tmp_path / "none.wav"))
    assert (status, said) == (2, "")
    assert error == f"pyemu: error: cannot read {tmp_path}/none.wav: No such file or directory\n"


@pytest.mark.parametrize("arguments", [["--max-drift", "1"], ["ORIGINAL", "--max-thd-n", "1"], ["--tone", "0"]])
def test_wrong_usage(good, arguments):
    result = CliRunner().invoke(audio_group, ["check", good, *arguments])
    assert result.exit_code == 2


def test_plot(tmp_path, bad):
    pytest.importorskip("matplotlib")
    status, *_ = run("plot", bad, "-o", str(tmp_path / "out.png"))
    assert not status
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_alone_imports_neither_numpy_nor_matplotlib():
    code = "import sys, emu.cli.audio; sys.exit(bool({'numpy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
