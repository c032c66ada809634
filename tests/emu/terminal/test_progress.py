"""The percentage that a user sees, and when."""

import io

from emu.terminal.progress import Progress, part


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(file, *, seconds):
    """Take ten steps of this length."""
    now = 0.0
    with Progress("thinking", file, lambda: now) as progress:
        for step in range(10):
            progress(step / 10)
            now += seconds / 10
    return file.getvalue()


def test_what_takes_a_moment_shows_nothing():
    assert work(Terminal(), seconds=1.9) == ""


def test_what_takes_longer_shows_its_progress_and_leaves_nothing_behind():
    shown = work(Terminal(), seconds=8).split("\r")
    assert shown[1:4] == ["pyemu: thinking: 30 %", "pyemu: thinking: 40 %", "pyemu: thinking: 50 %"]
    assert shown[-2:] == [" " * len("pyemu: thinking: 90 %"), ""]


def test_it_is_written_a_few_times_a_second_only():
    now = 0.0
    file = Terminal()
    with Progress("thinking", file, lambda: now) as progress:
        for step in range(10_000):
            now = step / 1000
            progress(step / 10_000)
    assert file.getvalue().count("%") == 40


def test_a_pipe_gets_nothing():
    assert work(io.StringIO(), seconds=100) == ""


def test_losing_the_terminal_ends_nothing():
    class Gone(Terminal):
        def write(self, _text: str) -> int:
            raise OSError

    assert work(Gone(), seconds=100) == ""


def test_a_part_is_shown_within_the_whole():
    seen: list[float] = []
    progress = part(seen.append, 0.5, 0.25)
    for done in (0, 0.5, 1):
        progress(done)
    assert seen == [0.5, 0.625, 0.75]


def test_more_may_be_shown_and_makes_way_for_a_line():
    times, file = iter((0.0, 3.0, 4.0)), Terminal()
    with Progress("thinking", file, lambda: next(times)) as progress:
        progress(0.5, ", a long text")
        progress(0.5, ", short")
        progress.clear()
        file.write("a line\n")
    long, short = "pyemu: thinking: 50 %, a long text", "pyemu: thinking: 50 %, short"
    assert file.getvalue() == f"\r{long}\r{short.ljust(len(long))}\r{' ' * len(short)}\ra line\n"
