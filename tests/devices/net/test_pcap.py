"""A record of every frame, as Wireshark reads it."""

import logging
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.net import Wire
from devices.net import pcap as module
from devices.net.base import Plug
from devices.net.pcap import PcapLog
from tests.devices.net.test_wire import Card
from tests.fakes import FakeClock

FRAME = bytes.fromhex("ffffffffffff 525400707900 0806".replace(" ", "")) + bytes(range(46))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(tmp_path: Path, clock: FakeClock) -> Iterator[PcapLog]:
    log = PcapLog(Wire(), tmp_path / "out.pcap")
    log.plug(Plug(Card(), lambda message: message(), clock.now))
    yield log
    log.close()


def frames(path: Path) -> list[tuple[int, bytes]]:
    """Read a file: (ns, frame) of each."""
    data = path.read_bytes()
    assert struct.unpack_from("<IHHIIII", data) == (0xA1B23C4D, 2, 4, 0, 0, 65538, 1)
    found, position = [], 24
    while position < len(data):
        seconds, ns, size, whole = struct.unpack_from("<IIII", data, position)
        assert size == whole
        found.append((seconds * 10**9 + ns, data[position + 16 : position + 16 + size]))
        position += 16 + size
    assert position == len(data)
    return found


def wire_of(log: PcapLog) -> Wire:
    assert isinstance(log._backend, Wire)
    return log._backend


def test_frames_of_both_directions_with_guest_time(log: PcapLog, clock: FakeClock) -> None:
    clock.advance(1_500_000_001)
    log.transmit(FRAME)
    clock.advance(10**9)
    wire_of(log).send(FRAME[::-1])
    assert log.fetch() == FRAME[::-1]
    assert log.fetch() is None
    assert wire_of(log).received() == [FRAME]
    assert frames(log.path) == [(1_500_000_001, FRAME), (2_500_000_001, FRAME[::-1])], "without closing it"


#: Writes frames until it is killed.
WRITER = """
import os, sys
from devices.net import Wire
from devices.net.pcap import PcapLog
log = PcapLog(Wire(lambda frame: None), sys.argv[1])
ping = bytes.fromhex("02000000000152540070790008004500001c00000000400166dd0a00020f0a0002020800f7ff00000000") + bytes(18)
while True:
    log.transmit(ping)
"""


def test_wireshark_reads_what_a_killed_process_leaves(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with subprocess.Popen([sys.executable, "-c", WRITER, path]) as process:
        while not path.exists() or path.stat().st_size < 100_000:
            time.sleep(0.01)
        process.kill()
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    done = subprocess.run(["tshark", "-r", path, "-c", "3"], check=True, capture_output=True, text=True)
    assert done.stdout.count("Echo (ping) request") == 3
    done = subprocess.run(["tshark", "-r", path, "-Y", "!icmp"], check=False, capture_output=True, text=True)
    assert not done.stdout


def test_it_is_as_the_backend_is(tmp_path: Path) -> None:
    wire = Wire(mtu=9000, mac=bytes(6))
    log = PcapLog(wire, tmp_path / "out.pcap")
    assert (log.mtu, log.hardware_address, log.real_time, log.verified) == (9000, bytes(6), False, False)
    assert log.describe() == f"a wire to Python, logged in {tmp_path}/out.pcap"
    assert log.ready()
    log.close()
    log.close()
    log.transmit(FRAME)
    assert wire.received() == [FRAME]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the log .*no/out.pcap cannot be written: No such file"):
        PcapLog(Wire(), tmp_path / "no" / "out.pcap")


def test_a_full_disk_ends_the_log_and_not_the_network(
    log: PcapLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log.transmit(FRAME)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.transmit(FRAME)
    assert len(wire_of(log).received()) == 4
    assert frames(log.path) == [(0, FRAME)]
    assert [record.getMessage() for record in caplog.records] == [f"the log {log.path} ends here: no space left"]


def test_there_is_an_end_to_its_size(
    log: PcapLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LIMIT", 24 + 2 * (16 + 60))
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            log.transmit(FRAME)
    assert len(frames(log.path)) == 2
    assert "4 GiB are enough" in caplog.text
