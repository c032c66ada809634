"""libslirp's interface (libslirp.h), as far as it is used: any release from 4.1 on, which is Debian 11's and later.

Only what all of these have is in here: their configuration of version 1, timers that are functions to call.
"""

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_bool,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_ssize_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from functools import cache

from devices.errors import MissingPackageError

__all__ = ["POLL", "AddPoll", "Callbacks", "Config", "GetEvents", "Timer", "in_address", "load"]

#: Events of poll(2), and libslirp's for the same.
POLL = ((0x001, 1), (0x004, 2), (0x002, 4), (0x008, 8), (0x010, 16))  # IN, OUT, PRI, ERR, HUP

AddPoll = CFUNCTYPE(c_int, c_int, c_int, c_void_p)
GetEvents = CFUNCTYPE(c_int, c_int, c_void_p)
Timer = CFUNCTYPE(None, c_void_p)


class InAddress(ctypes.Structure):
    """struct in_addr, in network order."""

    _fields_ = (("words", c_uint32),)


class In6Address(ctypes.Structure):
    """struct in6_addr."""

    _fields_ = (("words", c_uint32 * 4),)


class Config(ctypes.Structure):
    """SlirpConfig; what follows enable_emu belongs to later versions of it."""

    _fields_ = (
        ("version", c_uint32),
        ("restricted", c_int),
        ("in_enabled", c_bool),
        ("vnetwork", InAddress),
        ("vnetmask", InAddress),
        ("vhost", InAddress),
        ("in6_enabled", c_bool),
        ("vprefix_addr6", In6Address),
        ("vprefix_len", c_uint8),
        ("vhost6", In6Address),
        ("vhostname", c_char_p),
        ("tftp_server_name", c_char_p),
        ("tftp_path", c_char_p),
        ("bootfile", c_char_p),
        ("vdhcp_start", InAddress),
        ("vnameserver", InAddress),
        ("vnameserver6", In6Address),
        ("vdnssearch", c_void_p),
        ("vdomainname", c_char_p),
        ("if_mtu", c_size_t),
        ("if_mru", c_size_t),
        ("disable_host_loopback", c_bool),
        ("enable_emu", c_bool),
        ("later", c_uint8 * 64),
    )


class Callbacks(ctypes.Structure):
    """SlirpCb; what follows notify is called with later versions of the configuration only."""

    _fields_ = (
        ("send_packet", CFUNCTYPE(c_ssize_t, c_void_p, c_size_t, c_void_p)),
        ("guest_error", CFUNCTYPE(None, c_char_p, c_void_p)),
        ("clock_get_ns", CFUNCTYPE(c_int64, c_void_p)),
        ("timer_new", CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p)),
        ("timer_free", CFUNCTYPE(None, c_void_p, c_void_p)),
        ("timer_mod", CFUNCTYPE(None, c_void_p, c_int64, c_void_p)),
        ("register_poll_fd", CFUNCTYPE(None, c_int, c_void_p)),
        ("unregister_poll_fd", CFUNCTYPE(None, c_int, c_void_p)),
        ("notify", CFUNCTYPE(None, c_void_p)),
        ("later", c_void_p * 8),
    )


def in_address(packed: bytes) -> InAddress:
    """Make a struct in_addr, or in6_addr, of an address in network order."""
    return InAddress.from_buffer_copy(packed)


def in6_address(packed: bytes) -> In6Address:
    """The same for IPv6."""
    return In6Address.from_buffer_copy(packed)


@cache
def load() -> ctypes.CDLL:
    """Load the library; raises MissingPackageError, which says how to install it."""
    try:
        library = ctypes.CDLL("libslirp.so.0", use_errno=True)
    except OSError as error:
        raise MissingPackageError(
            "--net user needs libslirp, QEMU's user-mode network; install it: sudo apt install libslirp0"
        ) from error
    slirp = c_void_p
    for name, result, arguments in (
        ("slirp_new", slirp, (POINTER(Config), POINTER(Callbacks), c_void_p)),
        ("slirp_cleanup", None, (slirp,)),
        ("slirp_pollfds_fill", None, (slirp, POINTER(c_uint32), AddPoll, c_void_p)),
        ("slirp_pollfds_poll", None, (slirp, c_int, GetEvents, c_void_p)),
        ("slirp_input", None, (slirp, c_char_p, c_int)),
        ("slirp_add_hostfwd", c_int, (slirp, c_int, InAddress, c_int, InAddress, c_int)),
        ("slirp_version_string", c_char_p, ()),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
