"""The event queue (virtio 1.3, 5.14.6): what the device tells the driver unasked.

A source of events keeps a state, and whether the driver knows it; an event is made when there is a buffer to put it
in. So nothing piles up while there is none, however long that lasts, nothing waits, and what the driver hears in the
end is always the latest.

After a reset the driver hears nothing before its first control request, because it may not be ready: Linux crashes
over an event of something that it has counted and not yet set up. If that request is a query, the driver starts anew
and knows nothing, and the sources wait until it has asked for what they would tell. If not, it has woken up from
sleep, and knows what it knew before: Linux does not ask again.

There are events of jacks (jacks.py) and of controls (controls.py), and none of streams:

- EVT_PCM_PERIOD_ELAPSED belongs to the shared memory transport (F_EVT_SHMEM_PERIODS), which the specification has not
  filled in yet: no driver may select it. For messages the completion is that notification (5.14.6.8).
- EVT_PCM_XRUN would need F_EVT_XRUNS on offer, and Linux (5.13 to 6.6, so 6.1) selects whatever is: it then makes a
  real XRUN of each event, the stream stops and the application has to start again. That punishes a gap that ALSA
  finds by itself where it matters, so it is not offered. The device counts underruns (StreamStats).
"""

from collections.abc import Sequence
from typing import Protocol

from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import wire

__all__ = ["EventQueue", "EventSource"]


class EventSource(Protocol):
    """Something whose changes the driver is told of."""

    @property
    def has_news(self) -> bool:
        """Whether there is anything that the driver should know and does not."""
        ...

    def next_event(self) -> bytes:
        """Make an event (wire.EVENT) of the first such thing, which the driver knows from now on."""
        ...

    def forget(self) -> None:
        """There is a new driver, which knows nothing, and is to be told nothing that it has not asked for."""
        ...


class EventQueue:
    """Puts the news of ``sources`` into the buffers of the driver; without a queue, and without buffers, they wait."""

    def __init__(self, sources: Sequence[EventSource], size: int) -> None:
        self._sources = sources
        self._size = size
        self._queue: Queue | None = None
        self._silent = True  # nothing has been heard of the driver since the reset

    def attach(self, queue: Queue) -> None:
        """Use the driver's ``queue``, of at most ``size`` entries, from its first control request on."""
        self._queue = queue
        self._silent = True

    def detach(self) -> None:
        """Forget the queue: the device is reset."""
        self._queue = None

    def heed(self, code: int) -> None:
        """Note that the driver makes a control request, before it is answered."""
        if self._silent:
            self._silent = False
            if code in wire.QUERIES:
                for source in self._sources:
                    source.forget()
            self.deliver()

    def deliver(self) -> None:
        """Tell all that there are buffers for. To be called when there is news, and when there are new buffers."""
        if self._queue is None or self._silent:
            return
        # No more than an honest driver can have queued: whatever the rings of another are, this ends.
        for _ in range(self._size):
            source = next((source for source in self._sources if source.has_news), None)
            chain = self._queue.pop() if source is not None else None
            if source is None or chain is None:
                break
            self._queue.push(chain, _fill(chain, source))
        self._queue.signal()


def _fill(chain: Chain, source: EventSource) -> int:
    """Write an event, unless the buffer is too small for one: it goes back empty, and the news wait for the next."""
    if len(chain.writable) < wire.EVENT.size:
        return 0
    chain.writable.write(0, source.next_event())
    return wire.EVENT.size
