"""What the transport asks of a virtio device, and what it provides.

    reset --> (negotiation, all in the transport) --> activate --> notify ... --> reset
                                                      at DRIVER_OK
    (anything, in a machine that is restored) --> attach --> restore --> notify ... --> reset

A device is only its behaviour: it sees queues, features and its configuration space, no registers and no rings.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from devices.virtio.queue import Queue

__all__ = ["DEVICE_NAMES", "VirtioDevice"]

#: Device types (virtio 1.3 section 5), as the kernel names their drivers.
DEVICE_NAMES = {1: "net", 2: "blk", 3: "console", 4: "rng", 25: "sound", 26: "fs"}


class VirtioDevice(ABC):
    """A virtio device without its transport; nothing the driver does may make it raise."""

    #: Device type (virtio 1.2 section 5).
    device_id: int
    #: The device-specific features on offer; the transport adds those of queues and transport.
    features: int = 0
    #: Maximum size of each queue, a power of two.
    queue_sizes: tuple[int, ...]

    def config(self) -> bytes:
        """Return the current contents of the configuration space, little-endian."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:  # noqa: B027 (read-only is the default)
        """Take a driver's store to the configuration space, or beyond it. By default it is read-only."""

    @abstractmethod
    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        """Use these queues from now on, and forget any others; nothing else happens that anyone notices.

        There is a queue for every index; one that the driver did not set up stays empty and silent for ever.
        ``features`` are all the negotiated ones. Call ``config_changed`` after config() has changed.
        """

    def activate(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        """Start: the driver is ready (DRIVER_OK). That is to attach, and whatever else a driver's start sets off."""
        self.attach(queues, features, config_changed)

    @abstractmethod
    def notify(self, index: int) -> None:
        """Look at queue ``index``, which is ready: the driver says it is no longer empty (it may be wrong)."""

    @abstractmethod
    def reset(self) -> None:
        """Stop, and forget the queues and everything in flight. May be called at any time, repeatedly."""
