"""A record of every frame in a file that Wireshark and tcpdump read (draft-ietf-opsawg-pcap, with nanoseconds).

Time in it is guest time, from power-on. Each frame is written at once and whole, so the file is valid whenever pyemu
ends, however it does.
"""

import logging
import os
import struct
from pathlib import Path

from devices.errors import UsageError
from devices.net.base import MOST_FRAME, NetBackend, Plug

__all__ = ["PcapLog"]

_log = logging.getLogger(__name__)

#: Magic, version 2.4, two unused fields, the longest frame, LINKTYPE_ETHERNET.
_HEADER = struct.pack("<IHHIIII", 0xA1B2_3C4D, 2, 4, 0, 0, MOST_FRAME, 1)
#: Seconds, nanoseconds, bytes in the file, bytes of the frame.
_FRAME = struct.Struct("<IIII")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
#: No guest fills the disk.
LIMIT = 4 << 30


class PcapLog(NetBackend):
    """``backend``, with a record of its frames in the file ``path`` (``--net ...,log=PATH``).

    The file is created at once; raises UsageError if that fails. If writing fails later, or at 4 GiB, a warning says so
    once, and the network goes on.
    """

    def __init__(self, backend: NetBackend, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._backend = backend
        self.mtu, self.verified, self.real_time = backend.mtu, backend.verified, backend.real_time
        self.hardware_address = backend.hardware_address
        self._plugged: Plug | None = None
        self._size = 0
        try:
            self._descriptor: int | None = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
            )
        except OSError as error:
            raise UsageError(f"the log {self.path} cannot be written: {error.strerror}") from error
        self._write(_HEADER)

    @property
    def lost(self) -> int:
        """Frames that the backend has lost."""
        return self._backend.lost

    def plug(self, plug: Plug) -> None:
        """Belong to this machine from now on."""
        self._plugged = plug
        self._backend.plug(plug)

    def unplug(self) -> None:
        """Leave that machine alone from now on."""
        self._backend.unplug()

    def ready(self) -> bool:
        """Whether the backend has room."""
        return self._backend.ready()

    def transmit(self, frame: bytes) -> None:
        """Take a frame from the guest."""
        self._record(frame)
        self._backend.transmit(frame)

    def fetch(self) -> bytes | None:
        """Return the next frame for the guest."""
        frame = self._backend.fetch()
        if frame is not None:
            self._record(frame)
        return frame

    def describe(self) -> str:
        """Say what it is."""
        return f"{self._backend.describe()}, logged in {self.path}"

    def close(self) -> None:
        """Close the file and the backend."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._backend.close()

    def _record(self, frame: bytes) -> None:
        seconds, ns = divmod(0 if self._plugged is None else self._plugged.now(), 1_000_000_000)
        self._write(_FRAME.pack(seconds & 0xFFFF_FFFF, ns, len(frame), len(frame)) + frame)

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            if self._size + len(data) > LIMIT:
                raise OSError(0, "4 GiB are enough")  # noqa: TRY301 - one place says that it ends
            written = os.write(self._descriptor, data)
            if written < len(data):  # the disk is full, or nearly so: leave whole frames
                os.ftruncate(self._descriptor, self._size)
                raise OSError(0, "no space left")  # noqa: TRY301
        except OSError as error:
            _log.warning("the log %s ends here: %s", self.path, error.strerror)
            os.close(self._descriptor)
            self._descriptor = None
        else:
            self._size += len(data)
