"""The virtio entropy device (virtio 1.2 section 5.4): every buffer is returned filled with random bytes."""

import os
from collections.abc import Callable, Sequence
from typing import TypedDict

from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Queue

__all__ = ["EntropyDevice", "EntropyState"]

# A driver asks for a few hundred bytes, and asks again if it gets fewer. Descriptors can overlap, so a buffer can be
# larger than RAM: do not fill it all.
MAX_BYTES = 4 << 10


class EntropyState(TypedDict):
    """Nothing: all is in the queue, and in the source."""


class EntropyDevice(VirtioDevice):
    """A source of random bytes; ``source(n)`` returns n of them."""

    device_id = 4
    queue_sizes = (64,)

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._queue: Queue | None = None

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:  # noqa: ARG002
        """Serve requests from now on."""
        self._queue = queues[0]

    def notify(self, index: int) -> None:  # noqa: ARG002 (there is but one queue)
        """Fill the buffers that are waiting."""
        queue = self._queue
        if queue is None:
            return
        for chain in queue.pop_all():
            size = min(len(chain.writable), MAX_BYTES)
            chain.writable.write(0, self._source(size))
            queue.push(chain, size)
        queue.signal()

    def reset(self) -> None:
        """Stop."""
        self._queue = None

    def state(self) -> EntropyState:
        """Return the state."""
        return {}

    def restore(self, state: EntropyState) -> None:
        """Become what ``state`` says."""
