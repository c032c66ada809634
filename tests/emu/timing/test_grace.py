import pytest

from emu.timing.grace import Grace

MS = 1_000_000


class Host:
    """Its clock, and how much of that time the machine's thread had."""

    def __init__(self) -> None:
        self.now = self.ran = 0
        self.grace = Grace(lambda: self.now, lambda: self.ran)

    def run(self, ms: float) -> None:
        self.now += round(ms * MS)
        self.ran += round(ms * MS)

    def stand_still(self, ms: float, *, seen: bool) -> None:
        """The thread does not run; which is not always seen in what it is said to have run."""
        self.now += round(ms * MS)
        self.ran += 0 if seen else round(ms * MS)


@pytest.fixture
def host() -> Host:
    host = Host()
    host.run(3)
    host.grace.events_at(host.now)
    return host


def test_a_guest_that_ran_is_owed_nothing(host: Host) -> None:
    host.run(10.1)
    assert not host.grace.is_owed(13 * MS)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("before", [0.1, 5.0])
def test_the_host_stood_still_for_longer_than_the_guest_was_to_run(host: Host, before: float, seen: bool) -> None:
    host.run(before)
    host.stand_still(14, seen=seen)
    assert host.grace.is_owed(13 * MS)


def test_it_stood_still_for_most_of_that_time(host: Host) -> None:
    host.run(0.1)
    host.stand_still(9.5, seen=True)
    host.run(0.4)
    assert host.grace.is_owed(13 * MS)


def test_it_stood_still_but_the_guest_had_its_time(host: Host) -> None:
    host.stand_still(5, seen=True)
    host.run(5)
    assert not host.grace.is_owed(13 * MS)


def test_what_was_before_the_last_events_does_not_count(host: Host) -> None:
    host.stand_still(14, seen=True)
    host.grace.events_at(host.now)
    host.run(1)
    assert not host.grace.is_owed(18 * MS)
