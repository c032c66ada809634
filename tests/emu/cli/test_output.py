"""How the guest is paused when nobody reads what it prints, and that every byte arrives."""

import os
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from devices.errors import MachineError
from emu.cli.output import GuestOutput
from emu.cli.signals import Ending, Signals
from emu.terminal.filter import Filter

MUCH, TOO_MUCH = 200_000, 2_000_000


class Machine:
    """What the output needs from a machine; posted messages run when the test says so."""

    def __init__(self) -> None:
        self.console = self
        self.log: list[str] = []
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.post = self._inbox.put

    def hold(self, held: bool) -> None:
        self.log.append("hold" if held else "let go")

    def pause(self) -> None:
        self.log.append("pause")

    def resume(self) -> None:
        self.log.append("resume")

    def take_message(self) -> None:
        """Wait for a message, and run it."""
        self._inbox.get()()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def output(pipe) -> GuestOutput:
    return GuestOutput(Signals(), Filter(), pipe[1])


def read(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return bytes(data)


def test_a_reader_that_keeps_up_holds_nothing_up(machine, output, pipe):
    with output, output.of(machine):
        for _ in range(200):
            output(bytes(4000))
            read(pipe[0], 4000)
    assert machine.log == []


def test_the_guests_programs_wait_for_a_slow_reader(machine, output, pipe):
    with output, output.of(machine):
        output(bytes(MUCH))
        output(b"more")
        assert machine.log == ["hold"]
        assert read(pipe[0], MUCH + 4) == bytes(MUCH) + b"more"
        machine.take_message()
        assert machine.log == ["hold", "let go"]


def test_a_guest_that_does_not_wait_is_paused(machine, output, pipe):
    with output, output.of(machine):
        for _ in range(TOO_MUCH // MUCH):
            output(bytes(MUCH))
        machine.take_message()
        assert machine.log == ["hold", "pause"]
        read(pipe[0], TOO_MUCH)
        while machine.log[-1] != "resume":
            machine.take_message()
        assert machine.log == ["hold", "pause", "let go", "resume"]


def test_the_next_machine_is_held_up_for_what_the_one_before_has_printed(machine, output, pipe):
    with output:
        with output.of(machine):
            output(bytes(MUCH))
        with output.of(other := Machine()):
            assert other.log == ["hold"]
            read(pipe[0], MUCH)
            other.take_message()
            assert other.log == ["hold", "let go"]


@pytest.mark.parametrize("error", [Ending(143), None], ids=["from outside", "by a guest that reads nothing"])
def test_what_a_reader_can_take_at_the_end_is_written(machine, output, pipe, error):
    with pytest.raises(Ending) if error else pytest.MonkeyPatch.context(), output, output.of(machine):
        for number in range(100):
            output(b"%99d\n" % number)
        if error:
            raise error
    assert read(pipe[0], 10_000) == b"".join(b"%99d\n" % number for number in range(100))


def test_an_end_from_outside_does_not_wait_for_a_stopped_reader(machine, output, pipe):
    with pytest.raises(Ending), output, output.of(machine):  # noqa: PT012
        output(bytes(TOO_MUCH))
        raise Ending(143)
    read(pipe[0], TOO_MUCH)


def test_a_reader_that_has_gone_ends_the_run(machine):
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(Ending) as ending, GuestOutput(Signals(), Filter(), writing) as output, output.of(machine):  # noqa: PT012
        output(b"x")
        machine.take_message()
    assert ending.value.status == 141
    os.close(writing)


def test_what_cannot_be_written_is_an_error_even_at_the_very_end(machine):
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(MachineError, match="No space left"), GuestOutput(Signals(), Filter(), full) as output:  # noqa: PT012
        with output.of(machine):
            pass
        output(b"x")
    os.close(full)


def test_another_error_is_not_hidden_by_a_reader_that_has_gone(machine):
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(MachineError, match="of the guest"), GuestOutput(Signals(), Filter(), writing) as output:  # noqa: PT012
        output(b"x")
        raise MachineError("of the guest")
    os.close(writing)
