"""The default guest, booted: built on first use, never skipped."""

import math
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from emu import guest
from emu.console import Console
from emu.machine import Machine
from emu.shell import Shell
from emu.testing.evidence import kept

COMPLAINTS = re.compile(rb"Oops|WARNING:|BUG:|panic|Bad rss|stall|Call Trace|segfault|XRUN: |hw_ptr|Lost interrupts")


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """A command may take as long as a busy host needs for it; pytest's timeout ends what hangs."""
    with pytest.MonkeyPatch.context() as patch:
        for method in (Console.expect, Console.run, Console.give, Machine.put, Machine.get):
            patch.setattr(method, "__defaults__", (math.inf,))
        yield


@pytest.fixture(scope="session")
def guest_files() -> tuple[Path, Path]:
    """Image and rootfs.cpio of the default guest."""
    return guest.files(print)


class Booted:
    """The default guest at its shell."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.find_shell()

    def find_shell(self) -> None:
        """Get hold of the shell, even after the console was used for something else."""
        self._shell = Shell(self.machine)  # with a new prompt
        self._shell.find()

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; return its status and what was printed meanwhile, including its echo."""
        before = self.machine.console.printed
        status = self._shell.run(command)
        return status, self.machine.console.since(before).decode(errors="replace")

    def ok(self, command: str) -> str:
        """Run a command that must succeed."""
        status, text = self.run(command)
        assert status == 0, text
        return text

    def complaints(self) -> list[bytes]:
        """The kernel messages that should not be there."""
        return [line for line in self.machine.console.since(0).splitlines() if COMPLAINTS.search(line)]

    def evidence(self) -> list[str]:
        """Keep and draw what was played, for a failure's report; return lines that say where."""
        return kept(self.machine.audio)


GUESTS: pytest.StashKey[list[Booted]] = pytest.StashKey()


@pytest.fixture
def boot(request: pytest.FixtureRequest, guest_files: tuple[Path, Path]) -> Iterator[Callable[..., Booted]]:
    """``boot(**options)`` boots the default guest on the warp clock; at the end its kernel must not have complained."""
    with ExitStack() as machines:
        booted = request.node.stash.setdefault(GUESTS, [])

        def boot_guest(**options: Any) -> Booted:
            machine = machines.enter_context(Machine(*guest_files, **{"clock": "warp", **options}))
            booted.append(Booted(machine))
            return booted[-1]

        yield boot_guest
        assert [one.complaints() for one in booted] == [[]] * len(booted)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in this folder, so that ``-m "not guest"`` skips them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.guest)
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the sound of a failed test, and say where in its report."""
    report = yield
    if report.failed:
        fixtures = getattr(item, "funcargs", {}).values()
        guests = [*item.stash.get(GUESTS, []), *(value for value in fixtures if isinstance(value, Booted))]
        for one in guests:
            report.sections.append(("sound of the guest", "\n".join(one.evidence())))
    return report
