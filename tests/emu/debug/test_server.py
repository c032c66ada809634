"""The connection: what a client can do to it, and to the machine's thread."""

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emu.debug import server as module
from emu.debug.packets import frame
from emu.debug.server import Server


class Stub:
    """Answers each packet with itself; ``c`` has the machine run."""

    def __init__(self, send: Callable[[bytes], None], leave: Callable[[], None]) -> None:
        self.send, self.leave = send, leave
        self.waits = False
        self.heard: list[bytes] = []
        self.no_acks: Callable[[], None] = lambda: None

    def packet(self, data: bytes) -> None:
        self.heard.append(data)
        self.waits = data == b"c"
        if not self.waits:
            self.send(data)

    def interrupt(self) -> None:
        self.heard.append(b"C-c")
        if self.waits:
            self.stop()

    def stop(self) -> None:
        self.waits = False
        self.send(b"stopped")


class Bench:
    """A server, and a machine's thread of which each message is run by hand."""

    def __init__(self) -> None:
        self.messages: deque[Callable[[], None]] = deque()
        self.came = threading.Semaphore(0)
        self.stub: Stub | None = None
        self.parted = self.most = 0
        self.server = Server("127.0.0.1", 0, self.post, self.meet, self.part)

    def post(self, message: Callable[[], None]) -> None:
        self.messages.append(message)
        self.most = max(self.most, len(self.messages))
        self.came.release()

    def meet(self, send: Callable[[bytes], None], leave: Callable[[], None]) -> Any:
        self.stub = Stub(send, leave)
        return self.stub

    def part(self) -> None:
        self.parted += 1

    def run(self, messages: int) -> None:
        """Wait for so many messages, and do what they say."""
        for _ in range(messages):
            self.came.acquire()
            self.messages.popleft()()

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.port))
        client.sendall(data)
        return client


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.server.close()


def test_the_machine_has_one_packet_at_a_time(bench: Bench) -> None:
    with bench.connect(frame(b"?") * 1000) as client:
        bench.run(1 + 1000)
        assert bench.stub is not None
        assert bench.stub.heard == [b"?"] * 1000
        client.shutdown(socket.SHUT_WR)
        assert len(client.makefile("rb").read()) >= 1000
    assert bench.most == 1
    bench.run(1)
    assert bench.parted == 1


def test_while_the_guest_runs_only_c_c_is_heard(bench: Bench) -> None:
    with bench.connect(frame(b"c") + frame(b"1") + frame(b"2") + b"\3"):
        bench.run(1 + 1 + 1)
        assert bench.stub is not None
        assert bench.stub.heard == [b"c", b"C-c"]
        bench.run(2)
        assert bench.stub.heard == [b"c", b"C-c", b"1", b"2"]


def test_what_waits_is_handled_when_the_guest_stands(bench: Bench) -> None:
    with bench.connect(frame(b"c") + frame(b"1")):
        bench.run(2)
        assert bench.stub is not None
        bench.stub.stop()
        bench.run(1)
        assert bench.stub.heard == [b"c", b"1"]


def test_a_flood_while_the_guest_runs_is_left_outside_and_its_end_is_noticed(bench: Bench) -> None:
    client = bench.connect(frame(b"c"))
    bench.run(2)
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.sendall(frame(b"?") * 10_000_000)
    client.close()
    bench.run(1)
    assert bench.parted == 1
    assert bench.stub is not None
    assert bench.stub.heard == [b"c"]


def test_what_is_said_before_leaving_counts(bench: Bench) -> None:
    """Gdb's kill, for example."""
    bench.connect(frame(b"1") + frame(b"k")).close()
    bench.run(3)
    assert bench.stub is not None
    assert bench.stub.heard == [b"1", b"k"]
    bench.run(1)
    assert bench.parted == 1


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n" + frame(b"k"), b"\x16\x03\x01", b"SSH-2.0-x\r\n"])
def test_who_is_no_debugger_never_meets_the_machine(bench: Bench, hello: bytes) -> None:
    with bench.connect(hello) as client:
        assert client.recv(100) == b""
    bench.run(1)
    assert (bench.stub, bench.parted) == (None, 0)


def test_who_says_nothing_makes_room_for_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wait, over = module._wait, []

    def at_once(wanted: dict[int, int], seconds: float | None) -> dict[int, int]:
        if seconds == module._FIRST_S and not over:
            over.append("the first one's time")
            return {}
        return wait(wanted, seconds)

    monkeypatch.setattr(module, "_wait", at_once)
    with bench.connect(), bench.connect(b"+" + frame(b"1")) as client:
        bench.run(1 + 2)
        assert client.makefile("rb").read(4) == b"+$1#"


def test_a_client_that_stalls_in_a_packet_can_go_on_later(bench: Bench) -> None:
    with bench.connect(b"$qSuppo") as client:
        bench.run(1)
        client.sendall(b"rted#37")
        bench.run(1)
        assert bench.stub is not None
        assert bench.stub.heard == [b"qSupported"]


def test_who_closes_it_waits_for_its_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy host lets that wait: its descriptors would be somebody else's."""
    answer, go_on = bench.server._answer_bell, threading.Event()
    monkeypatch.setattr(bench.server, "_answer_bell", lambda: (go_on.wait(), answer()))
    threading.Timer(2.5, go_on.set).start()
    bench.server.close()
    assert not bench.server._thread.is_alive()


def test_it_can_be_closed_while_a_client_stalls(bench: Bench) -> None:
    with bench.connect(b"$qSuppo") as client:
        bench.run(1)
        bench.server.close()
        assert client.recv(100) == b""


def test_an_address_of_ipv6() -> None:
    bench = Bench()
    try:
        server = Server("::1", 0, bench.post, bench.meet, bench.part)
    except module.UsageError:
        pytest.skip("this host has no IPv6")
    with socket.create_connection(("::1", server.port)):
        server.close()
    bench.server.close()
