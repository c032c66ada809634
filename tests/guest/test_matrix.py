"""The matrix of sounds, as one runs it: a few of its cases, and that it sees what is wrong."""

import json
import subprocess
import sys

import pytest

from tests.benchmarks import matrix


@pytest.fixture
def run(guest_files, tmp_path):
    """``run(words)``: the status of the matrix, what it said, and its outcomes."""

    def run(*words):
        command = [sys.executable, "-m", "tests.benchmarks.matrix", *words, "-o", str(tmp_path / "m.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done, [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]

    return run


def test_some_of_it_is_exact_and_goes_on_where_it_was(run):
    some = ("--only", "kernel=default", "--only", "period=256,997", "--only", "channels=2", "--only", "format=S24_3")
    done, outcomes = run(*some, "--only", "rate=44100", "--only", "seed=1")
    assert "6 cases: 0 failed" in done.stdout, done.stderr
    assert (done.returncode, len(outcomes)) == (0, 6)
    assert {outcome["case"]["direction"] for outcome in outcomes} == {"play", "record", "both"}
    done, outcomes = run(*some, "--only", "rate=44100", "--only", "seed=1,2")
    assert "\n6 cases in " in f"\n{done.stdout}"
    assert "12 cases: 0 failed" in done.stdout


def test_a_wrong_bit_is_seen(guest_files, tmp_path, monkeypatch):
    case = {"kernel": "default", "seed": 0, "period": 256, "channels": 1, "rate": 8000, "format": "S16"}
    machine = matrix.Machine(matrix.snapshot("default"), clock="warp", audio=f"wav:{tmp_path}/out.wav")
    noise = matrix.noise
    changed = {number: noise(number)[:1000] + b"\x55\xaa" + noise(number)[1002:] for number in (1, 2)}
    with machine:
        matrix.sounds(machine, direction="both", **case)
        monkeypatch.setattr(matrix, "noise", lambda number: changed[number] if number == 1 else noise(number))
        with pytest.raises(AssertionError, match="1 frame altered"):
            matrix.sounds(machine, direction="play", **case)
        monkeypatch.setattr(matrix, "noise", noise)
        monkeypatch.setattr(matrix, "_Said", lambda params, data: _said(params, changed[2][: len(data)]))
        with pytest.raises(AssertionError, match="1 frame altered"):
            matrix.sounds(machine, direction="record", **case)


_said = matrix._Said
