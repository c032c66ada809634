"""Parses ``--net``: BACKEND[:ARGUMENT][,OPTION=VALUE]..."""

import re
import socket
from collections.abc import Callable

from devices.errors import UsageError
from devices.net.base import LEAST_MTU, MOST_MTU, NetBackend

__all__ = ["parse"]

_HELP = (
    "use user[,forward=tcp:127.0.0.1:2222-:22] or socket:PATH, and with either ,mac=52:54:00:00:00:01, ,mtu=1500 or "
    ",log=OUT.pcap"
)
_FORWARD = re.compile(r"(tcp|udp):([\d.]*):(\d{1,5})-([\d.]*):(\d{1,5})", re.ASCII)
_MAC = re.compile(r"([\da-f]{2}:){5}[\da-f]{2}", re.ASCII | re.IGNORECASE)

#: What it is called, with its values: an option may be given several times.
_Options = dict[str, list[str]]


def parse(text: str) -> NetBackend:
    """Make the backend that ``text`` describes; raises UsageError. Nothing is opened before all of it is understood."""
    first, *rest = text.split(",")
    kind, colon, argument = first.partition(":")
    if kind not in _KINDS or (kind == "user") == bool(colon) or bool(colon) != bool(argument):
        raise UsageError(f"--net {text}: no such network; {_HELP}")
    options = _options(text, kind, rest)
    macs, mtus, logs = (options.get(name) for name in ("mac", "mtu", "log"))
    mac = None if macs is None else _parse_mac(macs[0])
    mtu = None if mtus is None else _parse_mtu(mtus[0])
    backend = _KINDS[kind](argument, options, mac, mtu)
    if logs is None:
        return backend
    from devices.net.pcap import PcapLog  # noqa: PLC0415

    try:
        return PcapLog(backend, logs[0])
    except UsageError:
        backend.close()
        raise


def _options(text: str, kind: str, words: list[str]) -> _Options:
    options: _Options = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in {"mac", "mtu", "log", *_SEVERAL[kind]} or not value:
            raise UsageError(f"--net {text}: {word!r} makes no sense; {_HELP}")
        if name in options and name not in _SEVERAL[kind]:
            raise UsageError(f"--net {text}: {name}= is there twice")
        options.setdefault(name, []).append(value)
    return options


def _parse_mac(text: str) -> bytes:
    if _MAC.fullmatch(text) is None:
        raise UsageError(f"--net: mac={text}: use six bytes, like 52:54:00:00:00:01")
    mac = bytes.fromhex(text.replace(":", ""))
    if mac[0] & 1 or not any(mac):
        raise UsageError(f"--net: mac={text} is no card's address; use one like 52:54:00:00:00:01")
    return mac


def _parse_mtu(text: str) -> int:
    mtu = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not LEAST_MTU <= mtu <= MOST_MTU:
        raise UsageError(f"--net: mtu={text}: use a number of bytes from {LEAST_MTU} to {MOST_MTU}")
    return mtu


def _user(_argument: str, options: _Options, mac: bytes | None, mtu: int | None) -> NetBackend:
    from devices.net.slirp import Forward, UserNetwork  # noqa: PLC0415 - needs a library

    forwards = []
    for text in options.get("forward", ()):
        match = _FORWARD.fullmatch(text)
        try:
            if match is None:
                raise ValueError  # noqa: TRY301 - what is wrong in it is as wrong
            protocol, host, host_port, guest, guest_port = match.groups()
            addresses = [socket.inet_aton(host or "127.0.0.1"), socket.inet_aton(guest or "0")]
            if not 0 < int(host_port) <= 0xFFFF >= int(guest_port) > 0:
                raise ValueError  # noqa: TRY301
        except (ValueError, OSError):
            raise UsageError(
                f"--net user: forward={text} makes no sense; use PROTOCOL:[ADDRESS]:PORT-[GUEST]:PORT, "
                "like tcp:127.0.0.1:2222-:22"
            ) from None
        forwards.append(Forward(protocol, addresses[0], int(host_port), addresses[1], int(guest_port)))
    return UserNetwork(forwards=forwards, mac=mac, **({} if mtu is None else {"mtu": mtu}))


def _socket(path: str, _options: _Options, mac: bytes | None, mtu: int | None) -> NetBackend:
    from devices.net.stream import Stream  # noqa: PLC0415

    return Stream(path, mac=mac, **({} if mtu is None else {"mtu": mtu}))


_KINDS: dict[str, Callable[[str, _Options, bytes | None, int | None], NetBackend]] = {"user": _user, "socket": _socket}
_SEVERAL = {"user": ("forward",), "socket": ()}
