"""What ``--net`` understands."""

from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.net import parse
from devices.net.pcap import PcapLog
from devices.net.stream import Stream


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no such network; use user"),
        ("tap", "no such network; use user"),
        ("user:", "no such network"),
        ("user:eth0", "no such network"),
        ("socket", "no such network"),
        ("socket:", "no such network"),
        ("user,fast", "'fast' makes no sense"),
        ("user,mtu", "'mtu' makes no sense"),
        ("user,log=", "'log=' makes no sense"),
        ("socket:x,forward=tcp::1-:1", "'forward=tcp::1-:1' makes no sense"),
        ("user,mtu=1500,mtu=1500", "mtu= is there twice"),
        ("user,mtu=67", "mtu=67: use a number of bytes from 68 to 65520"),
        ("user,mtu=65521", "from 68 to 65520"),
        ("user,mtu=1e3", "from 68 to 65520"),
        ("user,mac=52:54:00:00:00", "mac=52:54:00:00:00: use six bytes"),
        ("user,mac=53:54:00:00:00:01", "is no card's address"),
        ("user,mac=00:00:00:00:00:00", "is no card's address"),
        ("user,forward=22", "forward=22 makes no sense; use PROTOCOL:"),
        ("user,forward=sctp::22-:22", "makes no sense"),
        ("user,forward=tcp:localhost:22-:22", "makes no sense"),
        ("user,forward=tcp:1.2.3.400:22-:22", "makes no sense"),
        ("user,forward=tcp::0-:22", "makes no sense"),
        ("user,forward=tcp::70000-:22", "makes no sense"),
        ("user,forward=tcp::22-:0", "makes no sense"),
    ],
)
def test_what_makes_no_sense_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"--net.*{message}") as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_options(tmp_path: Path) -> None:
    text = f"socket:{tmp_path}/wire,mtu=9000,mac=52:54:00:00:00:0A,log={tmp_path}/out.pcap"
    backend = parse(text)
    assert isinstance(backend, PcapLog)
    assert isinstance(backend._backend, Stream)
    assert (backend.mtu, backend.hardware_address) == (9000, bytes.fromhex("52540000000a"))
    backend.close()
    assert [one.name for one in tmp_path.iterdir()] == ["out.pcap"]


def test_a_log_that_cannot_be_written_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.pcap cannot be written"):
        parse(f"socket:{tmp_path}/wire,log={tmp_path}/no/out.pcap")
    assert list(tmp_path.iterdir()) == []
