"""The virtio console (virtio 1.3 section 5.3): one port, and the size of the window that shows it.

Neither multiple ports (F_MULTIPORT) nor output without a queue (F_EMERG_WRITE) are offered: Linux's ``hvc0`` needs
neither.

| actor | threat | mitigation |
|---|---|---|
| guest | endless output | nothing is stored here; `output` decides |
| guest | an output buffer larger than RAM, from overlapping descriptors | only its first `MAX_BYTES` are printed |
| guest | never makes room for input | the input waits outside |
| user | a paste larger than the guest's buffers | `receive` takes what fits; `ready` asks for the rest |
"""

import struct
from collections.abc import Callable, Sequence
from typing import TypedDict

from devices.contracts import Clock, Event, Events, Moment
from devices.state import U16, resume, saved
from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Queue

__all__ = ["F_SIZE", "ConsoleDevice", "ConsoleState"]

F_SIZE = 1 << 0
RECEIVE, TRANSMIT = 0, 1
#: More than any driver puts into one buffer (Linux: 32 KiB).
MAX_BYTES = 64 << 10
_CONFIG = struct.Struct("<HHII")  # cols, rows, and max_nr_ports and emerg_wr, which belong to features not offered
_LONGEST_SIDE = 0xFFFF
#: Linux discards input that arrives before its driver has finished starting. The driver then reads the size, as it is
#: asked to; one that never does gets input after this long.
_PATIENCE_NS = 2_000_000_000


class ConsoleState(TypedDict):
    """The window's size, and until when a driver that is starting gets no input."""

    columns: U16
    rows: U16
    starting: Moment | None


class ConsoleDevice(VirtioDevice):
    """A console with a terminal at the other end.

    ``output`` gets what the guest prints. ``receive`` gives the guest input, and ``ready`` is called when the guest may
    have made room for input not taken: then call ``receive`` with the rest.
    """

    device_id = 3
    features = F_SIZE
    queue_sizes = (16, 16)  # Linux fills the first with a page per entry

    def __init__(self, output: Callable[[bytes], None], clock: Clock, events: Events) -> None:
        self.ready: Callable[[], None] | None = None
        self._clock = clock
        self._events = events
        self._output = output
        self._size = (0, 0)  # columns, rows; 0 is unknown
        self._queues: Sequence[Queue] = ()
        self._size_changed: Callable[[], None] | None = None
        self._starting: Event | None = None

    # The terminal side.

    def receive(self, data: bytes) -> int:
        """Give the guest as much of ``data`` as it has room for; return how many bytes it took.

        There is no room before its driver has started.
        """
        if not self._queues or self._starting is not None:
            return 0
        queue, taken = self._queues[RECEIVE], 0
        for chain in queue.pop_all() if data else ():
            piece = data[taken : taken + len(chain.writable)]
            chain.writable.write(0, piece)
            queue.push(chain, len(piece))
            taken += len(piece)
            if taken == len(data):
                break
        queue.signal()
        return taken

    def resize(self, columns: int, rows: int) -> None:
        """Set the window's size; 0 is unknown."""
        size = (min(columns, _LONGEST_SIDE), min(rows, _LONGEST_SIDE))
        if size != self._size:
            self._size = size
            if self._size_changed is not None:
                self._size_changed()

    # The driver side.

    def config(self) -> bytes:
        """Return the size of the window (virtio 1.3 section 5.3.4)."""
        self._take_input()
        return _CONFIG.pack(*self._size, 0, 0)

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        """Use these queues from now on."""
        self.reset()
        self._queues = queues
        if features & F_SIZE:
            self._size_changed = config_changed

    def activate(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        """Start. A driver that has asked for the size will read it before it takes input."""
        self.attach(queues, features, config_changed)
        if self._size_changed is not None:
            self._starting = self._events.at(self._clock.now() + _PATIENCE_NS, self._take_input)
            self._size_changed()  # Linux reads the size only then

    def notify(self, index: int) -> None:
        """Print what is waiting, or ask for input."""
        if index == TRANSMIT:
            self._transmit()
        elif self.ready is not None:
            self.ready()

    def _transmit(self) -> None:
        if not self._queues:
            return
        queue = self._queues[TRANSMIT]
        for chain in queue.pop_all():
            data = chain.readable.read(0, min(len(chain.readable), MAX_BYTES))
            if data:
                self._output(data)
            queue.push(chain, 0)
        queue.signal()

    def reset(self) -> None:
        """Stop."""
        self._queues = ()
        self._size_changed = None
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None

    def state(self) -> ConsoleState:
        """Return the state."""
        columns, rows = self._size
        return {"columns": columns, "rows": rows, "starting": saved(self._starting)}

    def restore(self, state: ConsoleState) -> None:
        """Become what ``state`` says."""
        self._size = (state["columns"], state["rows"])
        self._starting = resume(self._events, state["starting"], self._take_input)

    def _take_input(self) -> None:
        """Note that the driver has started."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
            self.notify(RECEIVE)
