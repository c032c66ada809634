"""``pyemu sweep``: cases from files and matrices, results that survive their sweep, reports, and the status."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.emu import tiny

ROOT = Path(__file__).parents[3]
TEST = """
import os, time
from pathlib import Path

def check(machine, rate, period=1, seed=0):
    machine.run()
    assert rate != 8000 or period != 2, "no such thing"
    return {"rate": rate, "printed": machine.console.text.decode()}

def slow(machine, n):
    with open("begun", "a") as file:
        file.write(f"{n}\\n")
    time.sleep(0.02)

def dies(machine, n):
    machine.run()
    if n == 1:
        os.abort()
    return object()

if __name__ == "__main__":
    raise SystemExit("this is a script, too")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checks.py").write_text(TEST)
    tiny.write_image(tmp_path / "Image", tiny.say("hello\n"), tiny.POWER_OFF)
    return tmp_path


@pytest.fixture
def sweep(pyemu, folder):
    """``sweep(function, *options)``: its status and what it said."""

    def run(function, *options):
        status, out, said = pyemu(
            "sweep", f"checks.py:{function}", "--kernel", "Image", "-m", "16M", "-j", "1", *options
        )
        assert out == ""
        return status, said

    return run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_matrix_all_passed(sweep, folder):
    status, said = sweep("check", "--matrix", "rate=8000,44100", "--matrix", "period=1,x", "-o", "r.jsonl")
    assert (status, "4 cases: 4 passed, 0 failed" in said) == (0, True)
    results = lines(folder / "r.jsonl")
    cases = [{"rate": rate, "period": period} for rate in (8000, 44100) for period in (1, "x")]
    assert sorted(result["case"]["rate"] for result in results) == [8000, 8000, 44100, 44100]
    assert all(result["case"] in cases for result in results)
    assert {result["value"]["printed"] for result in results} == {"hello\n"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cases.jsonl", '{"rate": 8000, "period": 2}\n\n{"rate": 1e3}\n'),
        ("cases.csv", "rate,period\n8000,2\n1e3,1\n"),
    ],
)
def test_cases_from_a_file_one_failed(sweep, folder, name, text):
    (folder / name).write_text(text)
    status, said = sweep("check", "--cases", name, "--matrix", "seed=3")
    assert (status, "2 cases: 1 passed, 1 failed" in said) == (1, True)
    assert "AssertionError: no such thing" in said


def test_cases_from_a_pipe_are_read_once(sweep, folder):
    os.mkfifo(folder / "cases")
    writer = subprocess.Popen(["sh", "-c", """printf '{"rate": 1}\n{"rate": 2}\n' > cases"""], cwd=folder)
    status, said = sweep("check", "--cases", "cases")
    assert (status, "2 cases: 2 passed, 0 failed" in said) == (0, True)
    assert writer.wait() == 0


def test_the_line_that_repeats_a_failure_repeats_it(sweep, pyemu, folder):
    _, said = sweep("check", "--matrix", "rate=8000", "--matrix", "period=2")
    (line,) = (line for line in said.splitlines() if "to repeat it: " in line)
    status, _, said = pyemu(*shlex.split(line.partition("to repeat it: pyemu ")[2]))
    assert status == 1
    assert "AssertionError: no such thing" in said
    assert "hello" in said  # alone, all is shown


def test_a_value_that_is_no_json_and_a_process_that_dies(sweep, folder):
    assert sweep("dies", "--matrix", "n=0,1", "-o", "r.jsonl")[0] == 1
    passed, failed = sorted(lines(folder / "r.jsonl"), key=lambda result: result["case"]["n"])
    assert passed["value"].startswith("<object object")
    assert failed["error"]["type"] == "Crash"
    assert failed["console"] == "hello"


# ---------------------------------------------------------------- going on


def test_finished_cases_are_not_run_again(sweep, folder):
    assert sweep("slow", "--matrix", "n=0,1,2", "-o", "r.jsonl")[0] == 0
    status, said = sweep("slow", "--matrix", "n=0,1,2,3,3", "-o", "r.jsonl")
    assert (status, "3 outcomes are in r.jsonl" in said) == (0, True)
    assert sorted((folder / "begun").read_text().split()) == ["0", "1", "2", "3"]
    assert len(lines(folder / "r.jsonl")) == 4


def test_a_failure_of_the_part_before_counts(sweep):
    cases = ("--matrix", "rate=8000", "--matrix", "period=2", "-o", "r.jsonl")
    assert [sweep("check", *cases)[0] for _ in range(2)] == [1, 1]


def test_a_line_that_was_not_finished_is_run_again(sweep, folder):
    assert sweep("slow", "--matrix", "n=0,1", "-o", "r.jsonl")[0] == 0
    whole = (folder / "r.jsonl").read_bytes()
    (folder / "r.jsonl").write_bytes(whole[:-10])
    assert sweep("slow", "--matrix", "n=0,1", "-o", "r.jsonl")[0] == 0
    assert [result["case"] for result in lines(folder / "r.jsonl")] == [{"n": 0}, {"n": 1}]


def test_results_of_another_test_or_of_none_are_left_alone(sweep, folder):
    assert sweep("slow", "--matrix", "n=0", "-o", "r.jsonl")[0] == 0
    before = (folder / "r.jsonl").read_bytes()
    for function, options in (("dies", ()), ("slow", ("-m", "32M"))):
        status, said = sweep(function, "--matrix", "n=0", "-o", "r.jsonl", *options)
        assert (status, "another sweep" in said) == (2, True)
    assert (folder / "r.jsonl").read_bytes() == before
    status, said = sweep("slow", "--matrix", "n=0", "-o", "checks.py")
    assert (status, "no outcome" in said) == (2, True)
    assert (folder / "checks.py").read_text() == TEST


@pytest.mark.parametrize("name", ["host_ns", "repeat", "error", "console", "sound"])
def test_a_line_of_which_something_is_missing_is_no_outcome(sweep, folder, name):
    """Reports are made of it, too."""
    assert sweep("dies", "--matrix", "n=1", "-o", "r.jsonl")[0] == 1
    (record,) = lines(folder / "r.jsonl")
    for other in (None, [], 1 << 2000, f"../../{record['id']}.wav"):
        changed = {key: value for key, value in {**record, name: other}.items() if value is not None or key != name}
        (folder / "r.jsonl").write_text(json.dumps(changed) + "\n")
        if name in ("repeat", "console") and isinstance(other, str):
            continue  # a text like another
        status, said = sweep("dies", "--matrix", "n=1", "-o", "r.jsonl", "--junit", "j.xml", "--html", "p.html")
        assert (status, "r.jsonl:1 is no outcome" in said) == (2, True)


def test_a_sweep_that_is_killed_goes_on_where_it_was(folder):
    """Killed at random moments; in the end each case is there once."""
    moments = random.Random(1)
    command = [
        *(sys.executable, "-m", "emu", "sweep", "checks.py:slow", "--kernel", "Image", "-m", "16M", "-j", "2"),
        *("--matrix", f"n={','.join(map(str, range(60)))}", "-o", "r.jsonl"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(4):
        process = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE)
        time.sleep(0.6 + moments.random())
        process.kill()
        process.communicate()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 cases: 60 passed, 0 failed" in done.stderr
    assert sorted(result["case"]["n"] for result in lines(folder / "r.jsonl")) == list(range(60))


def test_c_c_ends_it_with_every_machine(folder):
    command = [sys.executable, "-m", "emu", "sweep", "checks.py:slow", "--kernel", "Image", "--matrix"]
    process = subprocess.Popen(
        [*command, f"n={','.join(map(str, range(5000)))}", "-j", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not (folder / "begun").exists():  # pytest's timeout says if that never comes
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate()  # and nobody else has its stderr
    assert process.returncode == 130
    begun = (folder / "begun").read_text()
    time.sleep(0.2)
    assert (folder / "begun").read_text() == begun


# ---------------------------------------------------------------- reports


def test_junit(sweep, folder):
    sweep("check", "--matrix", "rate=8000,44100", "--matrix", "period=2", "--junit", "j.xml")
    suite = ET.parse(folder / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    (failed,) = suite.findall("testcase/failure/..")
    assert json.loads(failed.get("name")) == {"rate": 8000, "period": 2}
    assert failed.find("failure").get("message") == "no such thing"
    assert failed.find("system-out").text == "hello"


def test_the_page_has_a_grid_and_the_failures(sweep, folder):
    sweep("check", "--matrix", "rate=8000,44100", "--matrix", "period=10,2", "--html", "p.html")
    page = (folder / "p.html").read_text()
    assert page.count('<td class="passed"') == 3
    assert page.count('<td class="failed"') == 1
    assert page.index("AssertionError: no such thing") < page.index("<table>")
    assert page.index("<th>2</th>") < page.index("<th>10</th>")
    assert "http" not in page  # all in one file


def test_a_page_without_its_grid_says_so(sweep, folder, monkeypatch):
    monkeypatch.setattr("emu.fleet.page._MOST_CELLS", 1)
    sweep("check", "--matrix", "rate=8000,44100", "--html", "p.html")
    page = (folder / "p.html").read_text()
    assert "too many cases for a grid" in page
    assert "<td" not in page


def test_what_a_guest_prints_stays_text(sweep, folder):
    tiny.write_image(folder / "Image", tiny.say("<script>]]>&\x01\x1b[31m\n"), tiny.POWER_OFF)
    sweep("dies", "--matrix", "n=1", "--html", "p.html", "--junit", "j.xml")
    assert "<script>" not in (folder / "p.html").read_text()
    assert (
        ET.parse(folder / "j.xml").getroot().find("testcase/system-out").text == "<script>]]>&\N{REPLACEMENT CHARACTER}"
    )


def test_a_cluster_without_dask_says_what_to_install(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, said = sweep("slow", "--matrix", "n=1", "--dask", "tcp://127.0.0.1:1")
    assert (status, "pip install 'pyemu-riscv[cluster]'" in said) == (1, True)


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "there are no cases"),
        (("--matrix", "rate"), "rate=8000,48000"),
        (("--cases", "none.jsonl"), "none.jsonl cannot be read"),
        (("--cases", "checks.py"), "checks.py:2: "),
        (("--case", "[]"), "is no case"),
        (("--matrix", "rate=1", "--case", "{}"), "--case is one case alone"),
        (("--matrix", "rate=1", "--snapshot", "s"), "--kernel"),
        (("--matrix", "rate=1", "--check-repeat", "200%"), "200%"),
        (("--matrix", "rate=1", "--timeout", "0"), "timeout"),
        (("--matrix", "rate=1", "-o", "nowhere/r.jsonl"), "nowhere/r.jsonl cannot be written"),
    ],
)
def test_wrong_usage_is_a_line_and_status_2(sweep, options, said):
    status, error = sweep("check", *options)
    assert status == 2
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "test", ["checks.py", "checks.py:nobody", "nowhere.py:check", "checks.py:Path", "bad.py:check", "nowhere:check"]
)
def test_a_test_that_is_not_there_is_a_line_and_status_2(pyemu, folder, test):
    (folder / "bad.py").write_text("def check(:\n")
    status, _, said = pyemu("sweep", test, "--kernel", "Image", "--matrix", "n=1")
    assert status == 2
    assert len(said.splitlines()) == 1
