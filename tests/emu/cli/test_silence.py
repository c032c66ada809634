"""What a user is told when the guest prints nothing, and when."""

from collections.abc import Callable

import pytest

from emu.cli import silence
from emu.console import Console
from emu.timing.clock import ManualClock


class Machine:
    """What is looked at."""

    def __init__(self, append: str = "") -> None:
        self.append = append
        self.clock = ManualClock()
        self.console = Console(lambda _done, _timeout: False)
        self.paused = False
        self.power = None
        self.said: list[str] = []
        self._messages: list[Callable[[], None]] = []
        silence.watch(self, lambda _seconds, message: self._messages.append(message), self.said.append)

    def pass_time(self, guest_seconds: int = 10) -> None:
        """Ten seconds of real time."""
        self.clock.advance(guest_seconds * 10**9)
        if self._messages:
            self._messages.pop()()


def test_it_is_reported_once():
    machine = Machine()
    for _ in range(3):
        machine.pass_time()
    assert len(machine.said) == 1
    assert machine.said[0].startswith(
        "the guest has printed nothing for 10 s, and is still running; the kernel may need more mem"
    )


def test_nothing_is_reported_about_a_guest_that_has_printed_something():
    machine = Machine()
    machine.console.print(b"x")
    machine.console.flush()
    machine.pass_time()
    assert machine.said == []


@pytest.mark.parametrize("slow", [True, False])
def test_a_slow_host_and_a_paused_machine_get_more_time(slow):
    machine = Machine()
    machine.paused = not slow
    machine.pass_time(2 if slow else 10)
    assert machine.said == []
    machine.paused = False
    machine.pass_time()
    assert len(machine.said) == 1


@pytest.mark.parametrize(
    ("append", "hint"),
    [
        ("console=tty0", "this machine has no console tty0: use ttyS0 or hvc0 (-a)"),
        ("console=ttyS0 console=tty1 quiet", "no console tty1"),
        ("console=ttyS0,115200", "more memory"),
        ("quiet", "more memory"),
    ],
)
def test_a_console_that_does_not_exist_is_named(append, hint):
    machine = Machine(append)
    machine.pass_time()
    assert hint in machine.said[0]
