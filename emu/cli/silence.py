"""Tells the user when the guest prints nothing at all.

A guest that died before it had a console looks just like a slow one, so this only reports and never ends the machine.
"""

from collections.abc import Callable

from emu.machine import Machine
from emu.options import last_console

__all__ = ["watch"]

#: Linux prints its first line within half a second. Guest time must pass, too, in case the host is slow or busy.
_SECONDS, _GUEST_NS = 10.0, 5_000_000_000
#: The consoles that this machine has.
_CONSOLES = ("ttyS0", "hvc0")


def watch(machine: Machine, remind: Callable[[float, Callable[[], None]], None], say: Callable[[str], None]) -> None:
    """Use ``say`` once to report what may be wrong if ``machine`` prints nothing for 10 s.

    ``remind(seconds, message)`` calls ``message()`` on the machine's thread after ``seconds`` of real time.
    """

    def look() -> None:
        if machine.console.printed or machine.power is not None:
            return
        if machine.paused or machine.clock.now() < _GUEST_NS:
            remind(_SECONDS, look)
        else:
            say(f"the guest has printed nothing for {_SECONDS:.0f} s, and is still running; {_advice(machine.append)}")

    remind(_SECONDS, look)


def _advice(append: str) -> str:
    console = last_console(append)
    if console and console not in _CONSOLES:
        return f"this machine has no console {console}: use {' or '.join(_CONSOLES)} (-a)"
    return "the kernel may need more memory (-m), or lack the driver of its console (8250 or virtio)"
