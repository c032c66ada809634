"""``--gdb``: how it is written, and a debugger that meets a machine of the command line's."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from devices.errors import UsageError
from emu.cli.debugging import parse
from tests.emu import tiny
from tests.emu.debug.client import Client

ROOT = Path(__file__).parents[3]
Kernel = Callable[..., Path]


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ("1234", ("127.0.0.1", 1234, False)),
        (":0,wait", ("127.0.0.1", 0, True)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535, False)),
        ("[::1]:1,wait", ("::1", 1, True)),
    ],
)
def test_where_to_listen(spec: str, place: tuple[str, int, bool]) -> None:
    assert parse(spec) == place


@pytest.mark.parametrize("spec", ["", "x", "65536", "-1", "1234,weit", "host:", "12:34:x", "٣"])
def test_what_is_no_port_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=r"that is not \[HOST:\]PORT"):
        parse(spec)


def switched_on(image: Path, stdin: int, *options: str) -> tuple[subprocess.Popen[bytes], int]:
    """Run pyemu with a debugger; return it, and the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "emu", "boot", image, "-m", "16M", "--audio", "null", "--gdb", "0,wait", *options],
        cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(rb"target remote :(\d+)'; the machine waits for it", line):
            return process, int(found[1])
    raise AssertionError("no port was named")


@pytest.mark.parametrize("clock", ["host", "warp"])
def test_a_machine_that_waits_and_goes_on(kernel: Kernel, clock: str) -> None:
    image = kernel(tiny.say("hello"), tiny.POWER_OFF)
    process, port = switched_on(image, subprocess.DEVNULL, "--clock", clock)
    client = Client(port)
    assert client.ask(b"vCont;c") == b"W00"
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, b"hello")
    client.close()


def test_c_a_x_quits_while_it_stands(kernel: Kernel) -> None:
    image = kernel(tiny.SPIN)
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "emu", "boot", str(image), "-m", "16M", "--gdb", "0,wait"])
    shown = b""
    while not (found := re.search(rb"target remote :(\d+)'", shown)):
        shown += os.read(terminal, 1 << 10)
    client = Client(int(found[1]))
    assert client.ask(b"vCont;s:1").startswith(b"T05")
    os.write(terminal, b"\x01x")
    with suppress(OSError):  # EIO: it has gone
        while os.read(terminal, 1 << 10):
            pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.close()
    os.close(terminal)


def test_a_reset_is_the_end_and_another_machine_waits(kernel: Kernel) -> None:
    process, port = switched_on(kernel(tiny.RESET), subprocess.DEVNULL, "--clock", "warp")
    client = Client(port)
    assert client.ask(b"c") == b"W00"
    client.close()
    assert process.stderr is not None
    again = next(found for line in process.stderr if (found := re.search(rb"target remote :(\d+)", line)))
    client = Client(int(again[1]))
    client.send(b"k")
    process.communicate()
    assert process.returncode == 0
    client.close()
