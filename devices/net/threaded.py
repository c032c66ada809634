"""What backends have in common that wait for the host's network on a thread of their own."""

import os
import threading
from abc import abstractmethod

from devices.net.base import NetBackend, Plug
from devices.net.exchange import Exchange

__all__ = ["Threaded"]


class Threaded(NetBackend):
    """A backend whose other side is a thread, which runs ``_run`` until ``_closed``."""

    def __init__(self, *, mtu: int, mac: bytes | None) -> None:
        self.mtu, self.hardware_address = mtu, mac
        self._exchange = Exchange()
        self._plugged: Plug | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lost = 0

    @abstractmethod
    def _run(self) -> None:
        """Move frames between the exchange and the network until closed, and release what there is of the host."""

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="pyemu network", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Frames that there was no room for, or nobody to give them to."""
        return self._lost

    def plug(self, plug: Plug) -> None:
        """Belong to this machine from now on."""
        self._plugged = plug
        self._exchange.plug(plug)

    def unplug(self) -> None:
        """Leave that machine alone from now on."""
        self._plugged = None
        self._exchange.unplug()

    def ready(self) -> bool:
        """Whether there is room."""
        return self._exchange.ready()

    def transmit(self, frame: bytes) -> None:
        """Take a frame from the guest."""
        self._exchange.transmit(frame)

    def fetch(self) -> bytes | None:
        """Return the next frame for the guest."""
        return self._exchange.fetch()

    def close(self) -> None:
        """End the thread."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            os.eventfd_write(self._exchange.bell, 1)
            self._thread.join()
        self._exchange.close()
