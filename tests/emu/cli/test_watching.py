"""--trace, --trace-file and --meter, as one types them."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emu.trace import CATEGORIES
from tests.emu import tiny
from tests.emu.asm import A6, A7, ecall, j, li

ROOT = Path(__file__).parents[3]
#: Ask the firmware for its version again and again.
CALLS = ["again", li(A7, 0x10), li(A6, 0), ecall(), j("again")]
CALL = r"\[ *\d+\.\d{6}\] sbi     sbi: get_spec_version arguments=.* result=SUCCESS value=0x2000000"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Run a command line in a process of its own."""
    processes = []

    def run(*arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "emu", "boot", *map(str, arguments)]
        processes.append(
            subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_lines_on_stderr_and_the_guests_output_alone_on_stdout(kernel, pyemu):
    image = kernel(CALLS[1:-1], tiny.say("hello\n"), tiny.POWER_OFF)
    status, output, error = pyemu("boot", image, "--trace", "sbi,snd")
    assert (status, output) == (0, "hello\n")
    assert re.fullmatch(f"{CALL}\n", error)


def test_a_file_instead(kernel, pyemu, tmp_path):
    path = tmp_path / "trace.json"
    status, output, error = pyemu("boot", kernel(CALLS[1:-1], tiny.POWER_OFF), "--trace-file", path)
    assert (status, output, error) == (0, "", "")
    assert {event["name"] for event in json.loads(path.read_text())} >= {"get_spec_version", "running"}


def test_a_file_of_some_categories(kernel, pyemu, tmp_path):
    path = tmp_path / "trace.json"
    pyemu("boot", kernel(CALLS[1:-1], tiny.POWER_OFF), "--trace-file", path, "--trace", "trap")
    assert {event["cat"] for event in json.loads(path.read_text()) if "cat" in event} == {"trap"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_file_is_finished_when_a_signal_ends_it(kernel, start, tmp_path, number):
    path = tmp_path / "trace.json"
    process = start(kernel(CALLS), "--trace-file", path)
    while not path.exists() or not path.stat().st_size:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert json.loads(path.read_text())


def test_what_is_in_the_file_of_a_process_that_was_killed(kernel, start, tmp_path):
    path = tmp_path / "trace.json"
    process = start(kernel(CALLS), "--trace-file", path)
    while not path.exists() or not path.stat().st_size:
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # not in the middle of a write
    os.waitpid(process.pid, os.WUNTRACED)
    process.kill()
    process.wait()
    assert len(json.loads(path.read_text() + "]")) > 100


def test_a_reset_goes_on_in_the_same_file(kernel, start, tmp_path):
    path = tmp_path / "trace.json"
    process = start(kernel(tiny.say("on\n"), CALLS[1:-1], tiny.RESET), "--trace-file", path)
    assert [process.stdout.readline() for _ in range(3)] == [b"on\n"] * 3
    process.terminate()
    assert process.wait() == 143
    assert {1, 2} <= {event["pid"] for event in json.loads(path.read_text())}


def test_a_trace_that_nobody_reads_can_still_be_ended(kernel, start):
    process = start(kernel(CALLS), "--trace", "sbi")
    waiting = [0, -1]
    while waiting[-1] != waiting[-2] or not waiting[-1]:  # until the pipe is full
        time.sleep(0.2)
        waiting.append(struct.unpack("i", fcntl.ioctl(process.stderr, termios.FIONREAD, bytes(4)))[0])
    process.terminate()
    assert process.wait() == 143


def test_unknown_categories_and_bad_files_are_a_line_before_anything_else(kernel, pyemu, tmp_path):
    status, output, error = pyemu("boot", tmp_path / "nothing", "--trace", "sbi,foo")
    assert (status, output) == (2, "")
    assert error == (
        "pyemu: error: there is nothing to trace called 'foo'; use all, or some of "
        "snd,virtio,net,plic,timer,sbi,run,trap\n"
    )
    status, _, error = pyemu("boot", kernel(tiny.POWER_OFF), "--trace-file", tmp_path)
    assert (status, error) == (2, f"pyemu: error: cannot write the trace to {tmp_path}: Is a directory\n")


def test_help_names_every_category(pyemu):
    assert f"{','.join(CATEGORIES)}, or all" in " ".join(pyemu("boot", "--help")[1].split())


def test_a_meter_needs_a_terminal(kernel, pyemu):
    assert pyemu("boot", kernel(tiny.POWER_OFF), "--meter") == (
        0,
        "",
        "pyemu: --meter is ignored: stderr is not a terminal\n",
    )
