"""Observers between a virtio device and its transport, and between the device and its queues."""

from collections.abc import Callable, Sequence
from typing import Any

from devices.virtio.device import VirtioDevice
from devices.virtio.queue import Chain, ChainState, Queue

__all__ = ["watch_device", "watch_queue"]


def watch_queue(
    queue: Queue,
    pushed: Callable[[Chain, int], None],
    signal: Callable[[Callable[[], None]], None] = lambda signal: signal(),
) -> Queue:
    """Return ``queue`` as its device should see it.

    ``pushed(chain, written)`` is called before a chain is returned, ``signal(do)`` when the driver is to be notified:
    it must call ``do``.
    """
    return _WatchedQueue(queue, pushed, signal)


def watch_device(
    device: VirtioDevice,
    watch_queue: Callable[[int, Queue], Queue],
    activated: Callable[[int], None] = lambda _features: None,
) -> VirtioDevice:
    """Return ``device`` as its transport should see it.

    At each activation ``activated(features)`` is called, and the device gets ``watch_queue(index, queue)`` for each
    queue.
    """
    return _WatchedDevice(device, watch_queue, activated)


class _WatchedQueue(Queue):
    """A queue to its users, but without state of its own: it forwards to the real one."""

    def __init__(
        self, queue: Queue, pushed: Callable[[Chain, int], None], signal: Callable[[Callable[[], None]], None]
    ) -> None:
        self._queue, self._pushed, self._signal = queue, pushed, signal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    @property
    def running(self) -> bool:
        return self._queue.running

    def stop(self) -> None:
        self._queue.stop()

    def resume_chain(self, state: ChainState) -> Chain:
        return self._queue.resume_chain(state)

    def pop(self) -> Chain | None:
        return self._queue.pop()

    def push(self, chain: Chain, written: int) -> None:
        self._pushed(chain, written)
        self._queue.push(chain, written)

    def signal(self) -> None:
        self._signal(self._queue.signal)


class _WatchedDevice(VirtioDevice):
    def __init__(
        self,
        device: VirtioDevice,
        watch_queue: Callable[[int, Queue], Queue],
        activated: Callable[[int], None],
    ) -> None:
        self._device, self._watch_queue, self._activated = device, watch_queue, activated
        self.device_id, self.features, self.queue_sizes = device.device_id, device.features, device.queue_sizes

    def config(self) -> bytes:
        return self._device.config()

    def write_config(self, offset: int, data: bytes) -> None:
        self._device.write_config(offset, data)

    def attach(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self._device.attach(self._watched(queues), features, config_changed)

    def activate(self, queues: Sequence[Queue], features: int, config_changed: Callable[[], None]) -> None:
        self._activated(features)
        self._device.activate(self._watched(queues), features, config_changed)

    def _watched(self, queues: Sequence[Queue]) -> list[Queue]:
        return [self._watch_queue(index, queue) for index, queue in enumerate(queues)]

    def notify(self, index: int) -> None:
        self._device.notify(index)

    def reset(self) -> None:
        self._device.reset()
