"""A cable between two machines, over a Unix stream socket."""

import logging
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import pytest

from devices.errors import UsageError
from devices.net.base import MOST_FRAME
from devices.net.stream import Frames, Stream
from tests.devices.net.other_end import OtherEnd
from tests.left import leaves_nothing

FRAME = bytes(60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wire"


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def end_at(path: Path, opened: ExitStack) -> OtherEnd:
    stream = Stream(path)
    opened.callback(stream.close)
    return OtherEnd(stream)


def connected(end: OtherEnd) -> bool:
    return end.backend.describe().endswith(", connected")


def test_frames_pass_both_ways_whoever_came_first(path: Path, opened: ExitStack) -> None:
    chance = Random(1)
    frames = [chance.randbytes(chance.choice([14, 60, 1514, MOST_FRAME])) for _ in range(300)]
    ends = [end_at(path, opened), end_at(path, opened)]
    ends[0].until(lambda: connected(ends[0]))
    for this, that in (ends, ends[::-1]):
        this.send(*frames[:3])
        that.until(lambda that=that: len(that.received) == 3)  # type: ignore[misc]
        assert that.received == frames[:3]
    sender = threading.Thread(target=ends[0].send, args=frames[3:])
    sender.start()
    ends[1].until(lambda: len(ends[1].received) == 300)
    sender.join()
    assert ends[1].received == frames


def test_two_cards_at_a_cable_have_two_addresses(path: Path, opened: ExitStack) -> None:
    first, second = end_at(path, opened), end_at(path, opened)
    assert first.backend.hardware_address is None
    assert second.backend.hardware_address == bytes.fromhex("525400707980")


def test_without_anybody_there_frames_are_lost(path: Path, opened: ExitStack) -> None:
    end = end_at(path, opened)
    end.send(FRAME, FRAME)
    end.until(lambda: end.backend.lost == 2)
    assert end.backend.describe() == f"socket {path}, nobody there"


@pytest.mark.parametrize("gone", [0, 1])
def test_either_may_go_and_come_back(path: Path, opened: ExitStack, gone: int) -> None:
    ends = [end_at(path, opened), end_at(path, opened)]
    stays = ends[1 - gone]
    ends[gone].backend.close()
    stays.until(lambda: not connected(stays))
    new = end_at(path, opened)
    new.until(lambda: connected(stays) and connected(new))
    stays.send(FRAME)
    new.until(lambda: new.received == [FRAME])


def test_the_socket_of_one_that_was_killed_is_taken_over(path: Path, opened: ExitStack) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    ends = [end_at(path, opened), end_at(path, opened)]
    ends[0].until(lambda: connected(ends[0]))


class Closing:
    """A listening socket; ``then`` is what happens once it is closed."""

    def __init__(self, listener: socket.socket, then: Callable[[], None]) -> None:
        self._listener, self._then = listener, then

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        return self._listener.accept()

    def close(self) -> None:
        self._listener.close()
        self._then()


def test_who_goes_leaves_the_socket_of_who_takes_its_place(path: Path, opened: ExitStack) -> None:
    first = Stream(path)
    assert first._listener is not None
    first._listener = Closing(first._listener, lambda: opened.callback(Stream(path).close))  # type: ignore[assignment]
    first.close()
    ends = [end_at(path, opened)]
    ends[0].until(lambda: connected(ends[0]))


def test_the_socket_is_gone_in_the_end(path: Path) -> None:
    stream = Stream(path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    stream.close()
    stream.close()
    assert not path.exists()


def test_nothing_is_left_behind(path: Path) -> None:
    with leaves_nothing():
        for _ in range(3):
            with ExitStack() as opened:
                end_at(path, opened), end_at(path, opened)


@pytest.mark.parametrize(
    ("name", "why"),
    [("no/wire", "No such file"), ("file", "something else than a socket"), ("x" * 200, "path too long")],
)
def test_a_path_that_cannot_be(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UsageError, match=why):
        Stream(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"


# ---------------------------------------------------------------- hostile peers


def peer_at(path: Path, opened: ExitStack) -> socket.socket:
    peer = opened.enter_context(socket.socket(socket.AF_UNIX))
    peer.connect(str(path))
    return peer


@pytest.mark.parametrize("length", [0, MOST_FRAME + 1, 0xFFFF_FFFF])
def test_a_frame_that_cannot_be_cuts_the_peer_off(
    path: Path, opened: ExitStack, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    end = end_at(path, opened)
    peer = peer_at(path, opened)
    with caplog.at_level(logging.WARNING):
        peer.sendall(length.to_bytes(4, "big") + FRAME)
        assert peer.recv(1) == b""
    assert f"has sent a frame of {length} bytes, and is cut off" in caplog.text
    peer = peer_at(path, opened)
    peer.sendall(len(FRAME).to_bytes(4, "big") + FRAME)
    end.until(lambda: end.received == [FRAME])


def test_a_flood_waits_outside(path: Path, opened: ExitStack) -> None:
    """A guest that takes nothing, and a peer that sends for ever: it has to stop, and nothing is lost."""
    stream = Stream(path)
    opened.callback(stream.close)
    peer = peer_at(path, opened)
    peer.settimeout(1.0)
    sent, data = 0, len(FRAME).to_bytes(4, "big") + FRAME
    with suppress(TimeoutError):
        while sent < 16 << 20:
            sent += peer.send(data * 100)
    assert sent < 16 << 20
    end = OtherEnd(stream)  # which loses what has waited for another machine
    peer.settimeout(None)
    rest = -sent % len(data)
    sender = threading.Thread(target=peer.sendall, args=(data[len(data) - rest :] + 101 * data,))
    sender.start()
    end.until(lambda: len(end.received) > 100)
    assert set(end.received) == {FRAME}
    end.until(lambda: not sender.is_alive())


def test_a_peer_that_reads_nothing_makes_the_guest_wait(path: Path, opened: ExitStack) -> None:
    end = end_at(path, opened)
    peer = peer_at(path, opened)
    end.until(lambda: connected(end))
    sent = full = 0
    while full < 50:
        if end.backend.ready():
            end.backend.transmit(bytes(1500))
            sent, full = sent + 1, 0
        else:
            time.sleep(0.002)
            full += 1
    assert sent < 5000
    stream = peer.makefile("rb")
    received = 0
    while received < sent:
        assert int.from_bytes(stream.read(4), "big") == 1500
        assert stream.read(1500) == bytes(1500)
        received += 1
    end.until(end.backend.ready)


def test_frames_are_found_however_the_stream_is_cut() -> None:
    chance = Random(1)
    frames = [chance.randbytes(chance.choice([1, 14, 60, 1514])) for _ in range(100)]
    data = memoryview(b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames))
    for most in (1, 3, 100, 10_000):
        splitter, found, position = Frames(), list[bytes](), 0
        while position < len(data):
            size = chance.randint(1, most)
            found += splitter.split(data[position : position + size])
            position += size
        assert found == frames
