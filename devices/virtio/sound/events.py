"""The event queue (virtio 1.3, 5.14.6): what the device reports to the driver unasked.

A source of events keeps its state and whether the driver knows it; an event is made only when there is a buffer for
it. However long the driver provides no buffers, nothing piles up, and what it finally hears is the latest state.

After a reset the driver hears nothing before its first control request, because it may not be ready: Linux crashes on
an event for something that it has counted but not yet set up. If that request is a query, the driver is starting from
scratch and knows nothing, so a source stays silent until the driver has asked about what it reports. Otherwise the
driver has woken up from sleep and knows what it knew before: Linux does not ask again.

There are events for jacks (jacks.py) and controls (controls.py), but none for streams:

- EVT_PCM_PERIOD_ELAPSED belongs to the shared memory transport (F_EVT_SHMEM_PERIODS), which the specification has not
  filled in yet: no driver may select it. For messages, completion serves as that notification (5.14.6.8).
- EVT_PCM_XRUN would require offering F_EVT_XRUNS, and Linux (5.13 to 6.6, hence 6.1) selects whatever is offered: it
  then turns each event into a real XRUN, which stops the stream and makes the application start again. That punishes a
  gap that ALSA detects itself where it matters, so it is not offered. The device counts underruns (StreamStats).
"""

from collections.abc import Sequence
from typing import Protocol

from devices.virtio.queue import Chain, Queue
from devices.virtio.sound import wire

__all__ = ["EventQueue", "EventSource"]


class EventSource(Protocol):
    """Something whose changes are reported to the driver."""

    @property
    def has_news(self) -> bool:
        """Whether there is anything that the driver should know but does not."""
        ...

    def next_event(self) -> bytes:
        """Make an event (wire.EVENT) for the first such thing, which the driver knows from now on."""
        ...

    def forget(self) -> None:
        """Prepare for a new driver, which knows nothing and is told nothing that it has not asked about."""
        ...


class EventQueue:
    """Puts news from ``sources`` into the driver's buffers; without a queue or without buffers, news waits."""

    def __init__(self, sources: Sequence[EventSource], size: int) -> None:
        self._sources = sources
        self._size = size
        self._queue: Queue | None = None
        #: Whether the driver has made no request since the reset. With its buffers, this is all the state there is.
        self.silent = True

    def attach(self, queue: Queue) -> None:
        """Use the driver's ``queue``, of at most ``size`` entries, from its first control request on."""
        self._queue = queue
        self.silent = True

    def detach(self) -> None:
        """Forget the queue: the device is reset."""
        self._queue = None

    def heed(self, code: int) -> None:
        """Note a control request by the driver, before it is answered."""
        if self.silent:
            self.silent = False
            if code in wire.QUERIES:
                for source in self._sources:
                    source.forget()
            self.deliver()

    def deliver(self) -> None:
        """Report as much as there are buffers for. Call it when there is news, and when there are new buffers."""
        if self._queue is None or self.silent:
            return
        # No more than an honest driver can have queued: whatever a hostile driver's rings say, this ends.
        for _ in range(self._size):
            source = next((source for source in self._sources if source.has_news), None)
            chain = self._queue.pop() if source is not None else None
            if source is None or chain is None:
                break
            self._queue.push(chain, _fill(chain, source))
        self._queue.signal()


def _fill(chain: Chain, source: EventSource) -> int:
    """Write an event. A buffer too small for one goes back empty, and the news waits for the next buffer."""
    if len(chain.writable) < wire.EVENT.size:
        return 0
    chain.writable.write(0, source.next_event())
    return wire.EVENT.size
