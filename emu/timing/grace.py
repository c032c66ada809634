"""What the guest is owed after the host stood still: some time of its own before the next events.

A guest that the host stopped amid its work sees events crowd in when it goes on. It would take two interrupts of sound
for one, "Lost interrupts?" to ALSA, before it had a chance to heed the first. So it gets that chance.
"""

import time
from collections.abc import Callable

__all__ = ["GRACE_NS", "Grace"]

#: What the guest gets: enough to take an interrupt and run what waits for it.
GRACE_NS = 2_000_000
_STOOD_STILL_NS = 1_000_000
_LATE_NS = 500_000


class Grace:
    """Tells when the guest is owed ``GRACE_NS``; ``now`` is guest time, ``ran`` how long this thread has run (ns)."""

    def __init__(self, now: Callable[[], int], ran: Callable[[], int] = time.thread_time_ns) -> None:
        self._now, self._ran = now, ran
        self._events = 0, 0  # when the last ones were, in both

    def events_at(self, now: int) -> None:
        """There are events for the guest, now."""
        self._events = now, self._ran()

    def is_owed(self, until: int) -> bool:
        """Whether the guest, whose turn was to end at ``until`` (guest time, ns), hardly ran since the last events.

        Time in which this thread did not run was not the guest's. A hypervisor that takes the processor away mostly
        counts that as having run; but the guest's turn then ends late.
        """
        when, before = self._events
        now, ran = self._now(), self._ran() - before
        return now - until > _LATE_NS or (ran < GRACE_NS and now - when - ran > _STOOD_STILL_NS)
