"""SiFive test device: a store to its one register powers the machine off or resets it.

The device tree describes it three times: as itself, and as the ``syscon`` behind a ``syscon-poweroff`` and a
``syscon-reboot`` node, which Linux and OpenSBI look for.
"""

from collections.abc import Mapping
from typing import ClassVar

from devices.contracts import Property, Ref
from devices.power import PowerAction, PowerRequest, PowerSwitch

__all__ = ["TestDevice"]

NODE_NAME = "test"

FINISHER = 0x0

FINISHER_FAIL = 0x3333
FINISHER_PASS = 0x5555
FINISHER_RESET = 0x7777


def _syscon_node(compatible: str, value: int) -> Mapping[str, Property]:
    """Describe the effect of storing ``value`` to a generic driver."""
    return {"compatible": compatible, "regmap": (Ref(NODE_NAME),), "offset": FINISHER, "value": value}


class TestDevice:
    """The device known as ``sifive,test0``; passes the guest's requests on to ``power``."""

    __test__ = False  # pytest: this is not a test class

    size = 0x1000
    node_name = NODE_NAME
    compatible: tuple[str, ...] = ("sifive,test1", "sifive,test0", "syscon")
    properties: ClassVar[Mapping[str, Property]] = {}
    #: See contracts.HasCompanions.
    companions: ClassVar[Mapping[str, Mapping[str, Property]]] = {
        "poweroff": _syscon_node("syscon-poweroff", FINISHER_PASS),
        "reboot": _syscon_node("syscon-reboot", FINISHER_RESET),
    }

    def __init__(self, power: PowerSwitch) -> None:
        self._power = power

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002  (the register is write-only)
        """Value of a guest load: 0."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Effect of a guest store: the low half is the action, the high half a failure's code."""
        if offset != FINISHER or size == 1:
            return
        finisher = value & 0xFFFF
        if finisher == FINISHER_PASS:
            self._power(PowerRequest(PowerAction.OFF))
        elif finisher == FINISHER_RESET:
            self._power(PowerRequest(PowerAction.RESET))
        elif finisher == FINISHER_FAIL:
            self._power(PowerRequest(PowerAction.FAIL, value >> 16 & 0xFFFF))
