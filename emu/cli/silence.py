"""What a user is told who sees nothing at all.

A machine that is dead before it has a console looks like one that takes its time; so this is said, and nothing is done.
"""

from collections.abc import Callable

from emu.machine import Machine
from emu.options import last_console

__all__ = ["watch"]

#: Linux prints its first line within half a second. A slow host, or one that is busy, has this much guest time, too.
_SECONDS, _GUEST_NS = 10.0, 5_000_000_000
#: What can be the guest's console here.
_CONSOLES = ("ttyS0", "hvc0")


def watch(machine: Machine, remind: Callable[[float, Callable[[], None]], None], say: Callable[[str], None]) -> None:
    """Have ``say`` tell what may be wrong, once, if ``machine`` prints nothing for long.

    ``remind(seconds, message)`` has ``message()`` called on the machine's thread after so much real time.
    """

    def look() -> None:
        if machine.console.printed or machine.power is not None:
            return
        if machine.paused or machine.clock.now() < _GUEST_NS:
            remind(_SECONDS, look)
        else:
            say(f"the guest has printed nothing for {_SECONDS:.0f} s, and runs on; {_advice(machine.append)}")

    remind(_SECONDS, look)


def _advice(append: str) -> str:
    console = last_console(append)
    if console and console not in _CONSOLES:
        return f"its console={console} is not there: use {' or '.join(_CONSOLES)} (-a)"
    return "a kernel may need more memory (-m), or lack the driver of its console (8250, or virtio's)"
