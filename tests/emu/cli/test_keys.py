"""C-a s in a terminal, and what is shown of a machine that was saved; test_terminal.py has the other keys."""

import shlex

import pytest

from emu import Machine, Snapshot
from tests.emu import tiny
from tests.emu.terminal.test_terminal import ROOT, Session


@pytest.fixture
def start(tmp_path):
    """Start ``pyemu boot`` in a terminal: an echo, with ``# `` as its prompt, unless there is a snapshot."""
    sessions = []

    def session(*arguments: str, image=None) -> Session:
        image = image or tiny.write_image(tmp_path / "Image", tiny.say("booted\n# "), tiny.ECHO)
        sessions.append(Session(image, *arguments))
        sessions[-1].wait_for(b"# ")
        return sessions[-1]

    yield session
    for one in sessions:
        one.close()


def test_c_a_s_saves_the_machine_and_its_last_line_is_shown_when_it_goes_on(start, tmp_path):
    saved = tmp_path / "it is.pyemu"
    running = start("--save", str(saved))
    running.type(b"half a line")
    running.wait_for(b"half a line")
    running.type(b"\x01s")
    running.wait_for(f"pyemu: saved; to go on from there: pyemu boot {shlex.quote(str(saved))}\r\n".encode())
    running.type(b" and on")
    running.wait_for(b" and on")
    again = start(image=saved)
    again.type(b", again")
    again.wait_for(b"C-a h shows help\r\n# half a line, again")
    assert b"booted" not in again.shown


def test_what_cannot_be_saved_is_a_line_and_the_machine_runs_on(start, tmp_path):
    saved = tmp_path / "nowhere" / "x"
    running = start("--save", str(saved))
    running.type(b"\x01s")
    running.wait_for(f"pyemu: error: {saved} cannot be saved: No such file or directory\r\n".encode())
    running.type(b"on")
    running.wait_for(b"directory\r\non")


def test_by_default_it_is_saved_pyemu(start, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.emu.terminal.test_terminal.ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running = start()
    running.type(b"\x01s")
    running.wait_for(b"pyemu boot saved.pyemu\r\n")
    assert Snapshot.open(tmp_path / "saved.pyemu").made["append"] == "console=ttyS0"


def test_where_nobody_types_the_last_line_is_not_repeated(pyemu, tmp_path):
    image = tiny.write_image(tmp_path / "Image", tiny.say("booted\n# "), tiny.until_typed(tiny.POWER_OFF))
    with Machine(image, clock="warp") as machine:
        machine.console.expect("# ")
        machine.console.send("x")
        machine.save(tmp_path / "x")
    assert pyemu("boot", tmp_path / "x") == (0, "", "")
