"""``--net user``: libslirp, the network of a user without rights. QEMU's user network is the same library.

The guest is at 10.0.2.15 (DHCP tells it so), the host at 10.0.2.2, which is also the way out, and 10.0.2.3 answers its
questions for names as the host would. Its connections are made by this process, as this user; nobody reaches the guest
but through ``forward=``.

Why libslirp, and not passt: of the five places that were tried, passt (2023-03, Debian 12's) works in two. It refuses
to start where the host has no network but loopback, where user namespaces are not allowed, as in most containers, and
as root without capabilities; and as root it becomes nobody, who has to be able to reach its socket. libslirp needs
nothing of the host but sockets. Whoever prefers passt connects to it with ``--net socket:PATH``.

libslirp does not run a thread or wait for anything itself: here one thread does both, and only that thread calls it.
"""

import ctypes
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from ctypes import byref, c_uint32, string_at
from typing import Any, NamedTuple, cast

from devices.errors import UsageError
from devices.net import libslirp
from devices.net.base import HEADER, MOST_FRAME
from devices.net.exchange import LIMIT, Exchange
from devices.net.libslirp import AddPoll, Callbacks, Config, GetEvents, Timer
from devices.net.threaded import Threaded

__all__ = ["Forward", "UserNetwork"]

_log = logging.getLogger(__name__)

_NETWORK, _MASK = bytes((10, 0, 2, 0)), bytes((255, 255, 255, 0))
_HOST, _NAMES, _GUEST = bytes((10, 0, 2, 2)), bytes((10, 0, 2, 3)), bytes((10, 0, 2, 15))
_PREFIX6 = bytes((0xFE, 0xC0)).ljust(16, b"\0")  # fec0::/64
_HOST6, _NAMES6 = _PREFIX6[:15] + b"\x02", _PREFIX6[:15] + b"\x03"

#: A large packet costs little more than a small one. Four of these fill TCP's window, which libslirp does not scale: of
#: packets nearly as large as that, the next is sent only when the window is empty, or some seconds later.
MTU = 16_384
#: Frames of the guest's that libslirp gets before it looks at its sockets again.
_AT_ONCE = 32
#: Bytes waiting for the guest beyond which no more are kept: only datagrams get there, and what 1,000 connections
#: send in one moment. Connections send it again.
_MOST_WAITING = 16 * LIMIT
_NO_TIMEOUT = 0xFFFF_FFFF
#: How long a connection goes on when the guest's time stands still: longer than that of one who has nothing to do may.
_PATIENCE_NS = 10_000_000_000
#: It keeps global things when it starts and ends an instance.
_LOCK = threading.Lock()


class Forward(NamedTuple):
    """Who connects to the host's port gets to the guest's."""

    protocol: str  # "tcp" or "udp"
    host: bytes
    host_port: int
    guest: bytes
    guest_port: int


class UserNetwork(Threaded):
    """The user-mode network of one machine.

    Raises UsageError for a port that cannot be listened on, MissingPackageError without libslirp.
    """

    verified = True

    def __init__(self, *, forwards: Sequence[Forward] = (), mtu: int = MTU, mac: bytes | None = None) -> None:
        super().__init__(mtu=mtu, mac=mac)
        try:
            self._stack = _Stack(self._exchange, mtu, self._now, forwards)
        except BaseException:
            self.close()
            raise
        self._start()

    def describe(self) -> str:
        """Say what it is."""
        return f"user network (libslirp {libslirp.load().slirp_version_string().decode()}), mtu {self.mtu}"

    @property
    def lost(self) -> int:
        """Frames that the guest did not take."""
        return self._stack.lost

    def _run(self) -> None:
        try:
            while not self._closed:
                self._stack.turn()
        finally:
            self._stack.clean_up()

    def _now(self) -> int:
        """Guest time: while the machine is paused, nothing is to be sent again and again."""
        plug = self._plugged
        return 0 if plug is None else plug.now()


class _Stack:
    """libslirp, and what it is called by and calls. Made on one thread, then used by one other."""

    def __init__(self, exchange: Exchange, mtu: int, now: Callable[[], int], forwards: Sequence[Forward]) -> None:
        self.lost = 0
        self._exchange, self._now = exchange, now
        self._library = library = libslirp.load()
        self._time = self._guest_time = 0
        self._real_time, self._patience = time.monotonic_ns(), 0
        self._timers: dict[int, Any] = {}  # by number: the function to call, its argument
        self._deadlines: dict[int, int] = {}  # by number, in ms of libslirp's time
        self._poll = select.poll()
        self._wanted: dict[int, int] = {}  # which events of which descriptor
        self._polled: dict[int, int] = {}  # those that _poll knows
        self._found: dict[int, int] = {}
        self._timeout = c_uint32()
        self._add_poll, self._get_events = AddPoll(self._add_descriptor), GetEvents(self._events_of)
        self._callbacks = self._make_callbacks()
        with _LOCK:
            self._slirp = library.slirp_new(byref(_configuration(mtu)), byref(self._callbacks), None)
        if not self._slirp:
            raise UsageError(f"--net user: libslirp does not take an MTU of {mtu}")
        try:
            for forward in forwards:
                self._add(forward)
        except BaseException:
            self.clean_up()
            raise
        self._poll.register(exchange.bell, select.POLLIN)

    def turn(self) -> None:
        """Have it look at the guest's frames, and then at its descriptors, for which it waits."""
        self._take_frames()
        self._look_outside()

    def clean_up(self) -> None:
        """End it, with all its connections."""
        with _LOCK:
            self._library.slirp_cleanup(self._slirp)

    def _take_frames(self) -> None:
        """Give libslirp what the guest has sent, as long as the guest takes what comes of it."""
        exchange, slirp, give = self._exchange, self._slirp, self._library.slirp_input
        for _ in range(_AT_ONCE):
            if exchange.full:
                break
            frame = exchange.take()
            if frame is None:
                break
            if len(frame) >= HEADER:
                give(slirp, frame, len(frame))
        exchange.flush()

    def _look_outside(self) -> None:
        """Wait until a descriptor has something for libslirp, or the guest has, and have it look."""
        exchange, library = self._exchange, self._library
        self._wanted = {}
        self._timeout.value = _NO_TIMEOUT
        full = exchange.full
        if not full:  # else nothing is wanted from outside
            library.slirp_pollfds_fill(self._slirp, byref(self._timeout), self._add_poll, None)
        self._watch()
        try:
            timeout = self._sleep_ms(full=full) if exchange.may_sleep(for_room=full, for_frame=not full) else 0
            self._found = dict(self._poll.poll(timeout))
        finally:
            exchange.awake()
        if not full:
            library.slirp_pollfds_poll(self._slirp, 0, self._get_events, None)
            self._run_timers()
            exchange.flush()

    def _sleep_ms(self, *, full: bool) -> int | None:
        if full:
            return None
        timeout = self._timeout.value
        if self._deadlines:
            timeout = min(timeout, max(min(self._deadlines.values()) - self._clock() // 1_000_000, 1))
        return None if timeout == _NO_TIMEOUT else min(timeout, 1 << 30)

    def _watch(self) -> None:
        """Have the wanted events polled for; mostly they are the same as before."""
        wanted, polled, poll = self._wanted, self._polled, self._poll
        if wanted == polled:
            return
        for descriptor in polled.keys() - wanted.keys():
            poll.unregister(descriptor)
        for descriptor, events in wanted.items():
            if polled.get(descriptor) != events:
                poll.register(descriptor, events)
        self._polled = wanted

    def _run_timers(self) -> None:
        if self._deadlines:
            now = self._clock() // 1_000_000
            for number in [number for number, deadline in self._deadlines.items() if deadline <= now]:
                del self._deadlines[number]
                function, argument = self._timers[number]
                function(argument)

    def _add(self, forward: Forward) -> None:
        host, guest = libslirp.in_address(forward.host), libslirp.in_address(forward.guest)
        udp = forward.protocol == "udp"
        if self._library.slirp_add_hostfwd(self._slirp, udp, host, forward.host_port, guest, forward.guest_port):
            why = os.strerror(ctypes.get_errno()) if ctypes.get_errno() else "it is taken"
            where = f"{forward.protocol} port {forward.host_port} of {'.'.join(map(str, forward.host))}"
            raise UsageError(f"--net user: {where} cannot be forwarded: {why}")

    # What libslirp calls, on the thread that has called it. What is raised here would only be printed.

    def _make_callbacks(self) -> Callbacks:
        callbacks, kinds = Callbacks(), cast("dict[str, Any]", dict(Callbacks._fields_))
        for name, function in {
            "send_packet": self._send,
            "guest_error": lambda message, _: _log.debug("libslirp: %s", message.decode("latin-1")),
            "clock_get_ns": lambda _: self._clock(),
            "timer_new": self._new_timer,
            "timer_free": self._free_timer,
            "timer_mod": lambda number, deadline, _: self._deadlines.__setitem__(number, deadline),
            "register_poll_fd": lambda _descriptor, _: None,
            "unregister_poll_fd": lambda _descriptor, _: None,
            "notify": lambda _: None,
        }.items():
            setattr(callbacks, name, kinds[name](function))
        return callbacks

    def _send(self, data: int, size: int, _opaque: None) -> int:
        exchange = self._exchange
        if exchange.fill >= _MOST_WAITING or size > MOST_FRAME:
            self.lost += 1
        else:
            exchange.give(string_at(data, size))
        return size

    def _clock(self) -> int:
        """Real time, but for when the guest's stands still: that of one who sleeps does so for some seconds, too."""
        guest_time, real_time = self._now(), time.monotonic_ns()
        if guest_time != self._guest_time:
            self._guest_time, self._patience = guest_time, _PATIENCE_NS
        passed = min(real_time - self._real_time, self._patience)
        self._real_time = real_time
        self._patience -= passed
        self._time += passed
        return self._time

    def _new_timer(self, function: int, argument: int | None, _opaque: None) -> int:
        number = len(self._timers) + 1
        self._timers[number] = Timer(function), argument
        return number

    def _free_timer(self, number: int, _opaque: None) -> None:
        self._deadlines.pop(number, None)

    def _add_descriptor(self, descriptor: int, events: int, _opaque: None) -> int:
        self._wanted[descriptor] = _POLL_EVENTS[events & 31]
        return descriptor  # libslirp asks by the number that this is

    def _events_of(self, descriptor: int, _opaque: None) -> int:
        found = self._found.get(descriptor)
        # Of a thousand connections, each may send all it has at once.
        return 0 if found is None or self._exchange.full else _SLIRP_EVENTS[found & 31]


_POLL_EVENTS = [sum(ours for ours, theirs in libslirp.POLL if events & theirs) for events in range(32)]
_SLIRP_EVENTS = [sum(theirs for ours, theirs in libslirp.POLL if events & ours) for events in range(32)]


def _configuration(mtu: int) -> Config:
    address, address6 = libslirp.in_address, libslirp.in6_address
    config = Config(version=1, in_enabled=True, in6_enabled=True, vprefix_len=64, if_mtu=mtu, if_mru=mtu)
    config.vnetwork, config.vnetmask, config.vhost = address(_NETWORK), address(_MASK), address(_HOST)
    config.vdhcp_start, config.vnameserver = address(_GUEST), address(_NAMES)
    config.vprefix_addr6, config.vhost6, config.vnameserver6 = map(address6, (_PREFIX6, _HOST6, _NAMES6))
    return config
