"""A driver that cuts its messages into descriptors at random, and checks every reply against the models."""

import random
import struct
from collections import Counter

from devices.virtio.sound import SoundDevice
from emu.timing.events import DeadlineHeap
from tests.devices.virtio.fake_driver import INDIRECT_DESC, USED_BUFFER, VERSION_1, Completed, Driver, Token
from tests.devices.virtio.sound.guest import CONTROLQ, EVENTQ, OK, RXQ, SECOND, TXQ, Card
from tests.devices.virtio.sound.storm.replies import QUERIES, ReplyModel
from tests.devices.virtio.sound.storm.streams import StreamModel, check_refused
from tests.fakes import FakeClock

__all__ = ["STREAMS", "CheckedDriver"]

STREAMS = (2, 2)
F_CTLS = 1 << 0
KINDS = {CONTROLQ: "control", EVENTQ: "event", TXQ: "tx", RXQ: "rx"}


class CheckedDriver:
    """The driver. ``counts`` says how many messages of each kind there were, and how they ended.

    The device's transport and queues and the deadline heap are the real ones; time is the test's.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = FakeClock(seed)
        self.heap = DeadlineHeap()
        self.card = Card(STREAMS)
        self.device = SoundDevice(self.clock, self.heap, self.card, outputs=STREAMS[0], inputs=STREAMS[1])
        self.driver = Driver(self.device)
        self.counts: Counter[str] = Counter()
        self.driver.start()
        self.model = ReplyModel({code: self._items(code, size) for code, size in QUERIES.items()})
        self.config = self.driver.config(0, 16)
        self.start()

    def _items(self, code: int, size: int) -> list[bytes]:
        """Ask well-formed questions until there are no more items."""
        items: list[bytes] = []
        while True:
            reply = self.driver.request(CONTROLQ, [struct.pack("<IIII", code, len(items), 1, size)], [4 + size])
            if reply.used_len == 4:
                return items
            items.append(reply.data[4:])

    @property
    def messages(self) -> int:
        """How many chains the driver has sent so far."""
        return sum(self.counts[kind] for kind in KINDS.values())

    # From the first status bit to the reset.

    def start(self, features: int = VERSION_1, sizes: list[int] | None = None) -> None:
        """Start, with queues of these sizes, 0 for none."""
        self.driver.memory.free_all()
        self.streams = [StreamModel(number < STREAMS[0], stats) for number, stats in enumerate(self.device.stats)]
        self.driver.start(features, sizes)
        self.model.start(self.streams, has_controls=bool(features & F_CTLS))
        #: Chains that the device has not been notified of: contents, and room.
        self.unheard: dict[int, list[tuple[Token, bytes, int]]] = {index: [] for index in KINDS}
        self.refused: set[Token] = set()
        self.replies: dict[Token, bytes] = {}
        self.counts["driver"] += 1

    def reset(self) -> None:
        """Reset; from then on the device does nothing."""
        self.driver.reset()
        assert not self.driver.irq.level
        assert self.driver.read("Status") == self.driver.read("InterruptStatus") == 0
        assert self.heap.next_deadline() is None
        assert all(port.state == "closed" for port in (*self.card.outputs, *self.card.inputs.values()))
        self.driver.memory.written.clear()
        self.clock.advance(SECOND)
        self.heap.run_due(self.clock.now())
        for index in (*KINDS, 77):
            self.driver.kick(index)
        assert not self.driver.memory.written

    # Sending.

    def post(self, queue: int, readable: bytes, room: int) -> bool:
        """Make a chain available, cut anywhere; False if the ring is full."""
        ring = self.driver.queues.get(queue)
        if ring is None or not ring.free:
            return False
        rng = self.rng
        indirect = bool(self.driver.features & INDIRECT_DESC) and rng.random() < 0.6
        most = 6 if indirect else min(6, len(ring.free))
        if most < 2 and readable and room:
            return False
        offered, wanted = self._cut(len(readable), most // 2), self._cut(room, most // 2)
        if not readable and (room or most < 2):
            offered = []
        elif not room:
            wanted = []
        direct = 0
        if indirect and len(ring.free) > 2 and rng.random() < 0.3:
            direct = rng.randrange(min(len(offered) + len(wanted), len(ring.free) - 1))
        contents = [readable[begin:end] for begin, end in offered]
        sizes = [end - begin for begin, end in wanted]
        token = self.driver.submit(queue, contents, sizes, indirect=indirect, direct=direct)
        self.unheard[queue].append((token, readable, room))
        if queue == EVENTQ:
            self.model.buffers.append((token, room))
        self.counts[KINDS[queue]] += 1
        return True

    def _cut(self, size: int, most: int) -> list[tuple[int, int]]:
        """Cut a range into a limited number of parts, which may be empty."""
        cuts = self.rng.randrange(most) if most > 1 and self.rng.random() < 0.5 else 0
        places = sorted(self.rng.randrange(size + 1) for _ in range(cuts))
        return list(zip([0, *places], [*places, size], strict=True))

    def kick(self, queue: int) -> None:
        """Notify the device, and update the models."""
        heard, self.unheard[queue] = self.unheard[queue], []
        ring = self.driver.queues.get(queue)
        assert not heard or queue == EVENTQ or self.driver.wants_kick(queue, len(heard))
        self.driver.kick(queue)
        now = self.clock.now()
        if queue == EVENTQ:
            self.model.tell()
        for token, readable, room in heard:
            if queue == CONTROLQ:
                self.replies[token] = self.model.reply(readable, room, now)
            elif queue != EVENTQ:
                self._model_message(queue, token, readable, room)
        assert ring is None or queue < TXQ or ring.used_idx == ring.last_used, "within the notification"

    def _model_message(self, queue: int, token: Token, readable: bytes, room: int) -> None:
        number = int.from_bytes(readable[:4], "little") if len(readable) >= 4 else len(self.streams)
        stream = self.streams[number] if number < len(self.streams) else None
        if stream is not None and stream.plays == (queue == TXQ) and stream.accepts(len(readable), room):
            stream.submit(token, readable[4:], room, self.clock.now())
        else:
            self.refused.add(token)

    def request(self, *requests: bytes, room: int = 4) -> None:
        """Send control requests and check the replies."""
        for request in requests:
            assert self.post(CONTROLQ, request, room)
            self.kick(CONTROLQ)
            self.collect()

    # Time.

    def pass_time(self, ns: int) -> None:
        """Let time pass; every event happens when it is due."""
        end = self.clock.now() + ns
        self.run_due()
        while (deadline := self.heap.next_deadline()) is not None and deadline <= end:
            self.clock.advance(max(0, deadline - self.clock.now()))
            self.run_due()
        self.clock.advance(end - self.clock.now())

    def run_due(self) -> None:
        """Run what is due; whatever that schedules for now waits for the next turn, as in the machine."""
        now = self.clock.now()
        for _ in range(1000):
            self.heap.run_due(now)
            self.collect()
            deadline = self.heap.next_deadline()
            if deadline is None or deadline > now:
                break
        else:
            raise AssertionError("no end")
        assert not self.refused
        for stream in self.streams:
            stream.settle(now)

    # What comes back.

    def collect(self) -> None:
        """Act as the interrupt handler: take what has come back, and check all of it."""
        driver = self.driver
        news = [index for index, ring in driver.queues.items() if ring.last_used != ring.used_idx]
        assert driver.irq.level == bool(news), "an interrupt is for something, and something interrupts"
        if news:
            assert driver.ack() == USED_BUFFER
        for index in news:
            for done in driver.completed(index):
                self._check(index, done)
        if not news:
            driver.check_writes()
        assert not self.replies
        assert not self.model.events
        for number, stream in enumerate(self.streams):
            assert not stream.returned
            if stream.plays:
                port = self.card.outputs[number]
                assert port.finished == stream.played
                del port.data[: len(stream.played)]
                port.parts.clear()
                stream.played.clear()
                del port.opened[:-1]

    def _check(self, queue: int, done: Completed) -> None:
        if queue == CONTROLQ:
            reply = self.replies.pop(done.token)
            assert done.data == reply + b"\xaa" * (len(done.data) - done.used_len)
            self.counts["ok" if reply[:4] == OK.to_bytes(4, "little") else "not ok"] += 1
        elif queue == EVENTQ:
            event = self.model.events.pop(done.token)
            assert done.data[: done.used_len] == event
            self.counts["heard"] += bool(event)
        elif done.token in self.refused:
            self.refused.remove(done.token)
            check_refused(done)
            self.counts["refused"] += 1
        else:
            self._check_message(done)

    def _check_message(self, done: Completed) -> None:
        for stream in self.streams:
            if done.token in stream.returned:
                self.counts["returned"] += 1
            elif stream.queued and stream.queued[0].token is done.token:
                self.counts["played" if stream.plays else "recorded"] += 1
            else:
                continue
            stream.check(done, self.clock.now())
            return
        raise AssertionError("out of order, or of nobody's")
