"""The records of a trace, and their categories."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from devices.errors import UsageError

__all__ = ["CATEGORIES", "DEFAULT", "Detail", "Emit", "Record", "parse_categories"]

#: What can be traced, in the order in which a viewer shows it.
CATEGORIES = {
    "snd": "control requests and their status, stream states, each period, xruns",
    "virtio": "notifications, used buffers, interrupts, status and features of each device; requests to a share",
    "net": "each frame of a network card, by protocol and address; what was lost",
    "plic": "interrupts: raised, claimed, completed",
    "timer": "the timer interrupt",
    "sbi": "calls to the built-in firmware and their results",
    "run": "when the CPU runs and when it waits",
    "trap": "every exception of the guest: system calls, page faults",
}
#: What is traced by default: there are too many exceptions to include them cheaply.
DEFAULT = ("snd", "virtio", "net", "plic", "timer", "sbi", "run")

Detail = dict[str, str | int | float]


class Record(NamedTuple):
    """Something that happened, at guest time ``time`` (ns since power-on).

    ``name`` is what happened, ``track`` to what ("playback 0", "irq 1 virtio-sound"). Something that lasted has a
    ``span``, its start and end; the end may be earlier than ``time``, when it became known. ``host`` is the host's
    monotonic clock (ns), or 0 under the warp clock, whose traces are the same in every run. ``machine`` numbers
    machines from 1: a reset makes a new one. Names in ``detail`` end in their unit: late_us.
    """

    time: int
    category: str
    track: str
    name: str
    detail: Detail
    span: tuple[int, int] | None = None
    host: int = 0
    machine: int = 1


class Emit(Protocol):
    """Makes a record: its time is now, its span from ``since`` to ``until`` (None: now)."""

    def __call__(
        self,
        category: str,
        track: str,
        name: str,
        detail: Detail,
        *,
        since: int | None = None,
        until: int | None = None,
    ) -> None:
        """Record it."""
        ...


def parse_categories(categories: str | Iterable[str]) -> frozenset[str]:
    """Parse "virtio,snd", "all" or a list of names; raises UsageError for unknown ones."""
    names = categories.split(",") if isinstance(categories, str) else list(categories)
    if names == ["all"]:
        return frozenset(CATEGORIES)
    for name in names:
        if name not in CATEGORIES:
            raise UsageError(f"there is nothing to trace called {name!r}; use all, or some of {','.join(CATEGORIES)}")
    return frozenset(names)
