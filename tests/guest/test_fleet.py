"""Sweeps over the default guest: the guide's, and what is kept of the sound of a case that has failed."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import emu
from emu.analysis import read_wav

ROOT = Path(emu.__file__).parents[1]
GUIDE = (ROOT / "emu" / "GUIDE.md").read_text().partition("## Many machines\n")[2]
TEST = """
def plays(machine, rate, fails=False, seed=0):
    machine.console.run(f"aplay -q -t raw -f S16_LE -r {rate} -c 2 /root/tone.wav")
    assert not fails, "as it should"
    return len(machine.audio.frames), machine.console.run("cat /proc/uptime /proc/interrupts").output
"""


@pytest.fixture
def sweep(guest_files, tmp_path):
    """``sweep(words)``: the status of ``pyemu sweep``, what it said, and the outcomes."""

    def run(*words: str) -> tuple[int, str, list[dict]]:
        command = [sys.executable, "-m", "emu", "sweep", *words, "-o", "results.jsonl", "--html", "results.html"]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        outcomes = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        return done.returncode, done.stderr, outcomes

    return run


def test_the_guides_sweep(sweep, tmp_path):
    (tmp_path / "checks.py").write_text(re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1])
    line = re.search(r"`pyemu sweep (.*?) -o results.jsonl --html results.html`", GUIDE)[1]
    status, said, outcomes = sweep(*shlex.split(line))
    assert "4 cases: 4 passed, 0 failed" in said
    assert (status, len(outcomes)) == (0, 4)
    assert (tmp_path / "results.html").read_text().count('<td class="passed"') == 4


def test_a_machine_that_went_back_is_one_that_was_made_to_the_bit(sweep, tmp_path):
    (tmp_path / "checks.py").write_text(TEST)
    status, said, outcomes = sweep(
        "checks.py:plays", "--matrix", "rate=48000,44100", "--matrix", "seed=0,1,0", "--check-repeat", "100%", "-j", "1"
    )  # fmt: skip
    assert status == 0, said
    assert len(outcomes) == 4  # the same case again is the same case
    assert len({(*outcome["value"], outcome["guest_ns"]) for outcome in outcomes}) == 4


def test_of_a_case_that_failed_there_is_its_sound_and_a_picture(sweep, tmp_path):
    (tmp_path / "checks.py").write_text(TEST)
    status, _, (outcome,) = sweep("checks.py:plays", "--case", '{"rate": 48000, "fails": true}')
    assert status == 1
    assert outcome["error"]["message"] == "as it should"
    played = read_wav(tmp_path / outcome["sound"]).frames
    assert len(played) >= 48011  # its header, too
    assert np.abs(played).max() > 1000
    assert 'src="data:image/png;base64,iVBOR' in (tmp_path / "results.html").read_text()
