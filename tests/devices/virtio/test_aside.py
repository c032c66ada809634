"""Work aside that is done at once."""

from devices.virtio.aside import at_once


def test_at_once_is_done_when_it_returns() -> None:
    log: list[object] = []
    at_once(lambda: log.append("work"), log.append)
    assert log == ["work", None]


def failing() -> None:
    raise OSError("no")


def test_at_once_tells_of_a_failure() -> None:
    told: list[OSError | None] = []
    at_once(failing, told.append)
    assert [str(error) for error in told] == ["no"]
