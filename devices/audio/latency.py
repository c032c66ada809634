"""How late the guest's sound may be on the host: what the user says of it, and what follows."""

import re

from devices.errors import UsageError

__all__ = ["LATENCY", "far_too_long", "parse_latency", "part_of"]

#: Seconds: enough for a host that keeps us waiting for a moment now and then.
LATENCY = 0.1
_LEAST, _MOST = 0.01, 1.0
#: A message is wanted in parts that are so long (s), and several within the latency.
_PART = 0.010
_PARTS = 5
#: A delay that is so much too long (s) is not drift any more.
_FAR_TOO_LONG = 0.05


def parse_latency(text: str) -> float:
    """Return the seconds in ``50ms`` or ``0.05s``; raises UsageError."""
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?)(ms|s)?", text)
    seconds = float(match[1]) / (1 if match[2] == "s" else 1000) if match else 0.0
    if not _LEAST <= seconds <= _MOST:
        raise UsageError(f"--audio host: latency={text}: use a time from 10ms to 1s")
    return seconds


def part_of(latency: float) -> float:
    """In what parts (s) a message is to be handed over."""
    return min(_PART, latency / _PARTS)


def far_too_long(latency: float) -> float:
    """By how much (s) a delay has to be too long for frames to be passed over, which is heard.

    Whoever asks for much latency wants no gaps: a host that stops us for a moment is not to make one.
    """
    return max(_FAR_TOO_LONG, latency / 2)
