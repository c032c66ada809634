"""What the guest can ask of the machine's power switch, whichever way it asks (test device, SBI SRST)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

__all__ = ["PowerAction", "PowerRequest", "PowerSwitch"]


class PowerAction(Enum):
    """What is to happen to the machine."""

    OFF = "power off"
    RESET = "reset"
    FAIL = "power off after a failure"


@dataclass(frozen=True, slots=True)
class PowerRequest:
    """One request; ``code`` (16 bits) says what failed and is 0 otherwise."""

    action: PowerAction
    code: int = 0


#: Called with each request. It returns: the machine acts at its next stop.
PowerSwitch = Callable[[PowerRequest], None]
