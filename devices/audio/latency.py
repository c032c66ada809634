"""How late the guest's sound may be on the host: what the user asks for, and what follows from it."""

import re

from devices.errors import UsageError

__all__ = ["LATENCY", "far_too_long", "parse_latency", "part_of"]

#: Seconds: enough for a host that stalls us briefly now and then.
LATENCY = 0.1
_LEAST, _MOST = 0.01, 1.0
#: Messages are requested in parts of this length (s), several of them within the latency.
_PART = 0.010
_PARTS = 5
#: A delay that is too long by this much (s) is no longer drift.
_FAR_TOO_LONG = 0.05


def parse_latency(text: str) -> float:
    """Return the seconds in ``50ms`` or ``0.05s``; raises UsageError."""
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?)(ms|s)?", text)
    seconds = float(match[1]) / (1 if match[2] == "s" else 1000) if match else 0.0
    if not _LEAST <= seconds <= _MOST:
        raise UsageError(f"--audio host: latency={text}: use a time from 10ms to 1s")
    return seconds


def part_of(latency: float) -> float:
    """The length (s) of the parts in which a message should be handed over."""
    return min(_PART, latency / _PARTS)


def far_too_long(latency: float) -> float:
    """How much (s) too long a delay must be before frames are skipped, which is audible.

    A user who asks for a long latency wants no gaps, even if the host stops us for a moment.
    """
    return max(_FAR_TOO_LONG, latency / 2)
