"""What the guest can ask of the machine's power switch, by whichever route (test device, SBI SRST)."""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

__all__ = ["PowerAction", "PowerRequest", "PowerSwitch"]


class PowerAction(Enum):
    """What should happen to the machine."""

    OFF = "power off"
    RESET = "reset"
    FAIL = "power off after a failure"


class PowerRequest(NamedTuple):
    """One request; ``code`` (16 bits) says what failed and is otherwise 0."""

    action: PowerAction
    code: int = 0


#: Called with each request. It returns: the machine acts at its next stop.
PowerSwitch = Callable[[PowerRequest], None]
