"""The network cards of a machine: each gets an address, and its cable is plugged into a backend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING
from weakref import proxy, ref

from devices.errors import UsageError
from devices.net import NetBackend, parse
from devices.net.base import Plug
from devices.virtio.net import NetDevice
from emu.timing.warp import WarpClock

if TYPE_CHECKING:
    from emu.machine import Machine

__all__ = ["make_cards", "open_networks"]

#: Locally administered, "py", and the number of the card.
_USUAL_ADDRESS = bytes((0x52, 0x54, 0x00, 0x70, 0x79))


@contextmanager
def open_networks(texts: Sequence[str], clock: str) -> Iterator[list[NetBackend]]:
    """Open what ``--net`` names for several machines, one after another: connections and logs go on with the next.

    Raises UsageError, before anything is opened, if they don't fit the ``clock``.
    """
    with ExitStack() as opened:
        yield [opened.enter_context(closing(_open(text, warps=clock == "warp"))) for text in texts]


def make_cards(nets: Sequence[NetBackend | str], machine: "Machine", opened: ExitStack) -> list[NetDevice]:
    """Make a card for each of ``nets``; ``opened`` takes the cables out, and closes what was opened here.

    Raises UsageError for a backend that does not fit the machine.
    """
    return [_make(net, number, machine, opened) for number, net in enumerate(nets)]


def _make(net: NetBackend | str, number: int, machine: "Machine", opened: ExitStack) -> NetDevice:
    name, warps = f"--net {net}" if isinstance(net, str) else "this network", isinstance(machine.clock, WarpClock)
    if isinstance(net, str):
        net = _open(net, warps=warps)
        opened.callback(net.close)
    if net.real_time and warps:
        raise _out_of_time(name)
    if machine.journal is not None:
        raise UsageError(f"{name} is not part of a recording, and could not be repeated; leave it or --record out")
    card = NetDevice(net, net.hardware_address or _USUAL_ADDRESS + bytes((number,)))
    net.plug(_plug_of(machine, card))
    opened.callback(net.unplug)
    return card


def _open(text: str, *, warps: bool) -> NetBackend:
    if warps:  # and nothing that a text names does
        raise _out_of_time(f"--net {text}")
    return parse(text)


def _plug_of(machine: "Machine", card: NetDevice) -> Plug:
    """Return what a backend gets to know, which keeps no machine alive: its thread would, for ever."""
    there = ref(machine)

    def post(message: Callable[[], None]) -> None:
        machine = there()
        if machine is not None:
            machine.post(message)

    def now() -> int:
        machine = there()
        return 0 if machine is None else machine.clock.now()

    return Plug(proxy(card), post, now)


def _out_of_time(name: str) -> UsageError:
    return UsageError(
        f"{name}: a real network's time does not jump as that of --clock warp; use --clock host, or in Python a Wire"
    )
