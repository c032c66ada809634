"""Random messages of every kind in every order, most of them valid and some very bad, and everything else that a guest
and its machine may do in between; the seed decides all of it.

    storm = Storm(seed)
    storm.run(messages=10_000)
"""

import struct

from tests.devices.virtio.fake_driver import CONFIG_CHANGE, EVENT_IDX, INDIRECT_DESC, NEEDS_RESET, VERSION_1
from tests.devices.virtio.sound.guest import (
    CONTROLQ,
    EVENTQ,
    PCM_INFO,
    PREPARE,
    RELEASE,
    RXQ,
    S16_STEREO,
    SECOND,
    START,
    STOP,
    TXQ,
)
from tests.devices.virtio.sound.storm.broken import break_ring
from tests.devices.virtio.sound.storm.driver import F_CTLS, STREAMS, CheckedDriver
from tests.devices.virtio.sound.storm.requests import ODD, any_request, room_for, set_params, stream_command

__all__ = ["Storm"]

#: Messages in each I/O queue at once, at most.
IN_FLIGHT = 24
FIRST_INPUT = STREAMS[0]
#: Registers that are read-only or do not exist; and those that configure a queue, which do nothing once it runs.
READ_ONLY = [0x000, 0x004, 0x008, 0x00C, 0x010, 0x018, 0x060, 0x0AC, 0x0B0, 0x0C0, 0x0FC, 0x100, 0x104, 0x10C, 0xFFC]
CONFIGURATION = [0x020, 0x024, 0x030, 0x038, 0x080, 0x084, 0x090, 0x094, 0x0A0, 0x0A4]


class Storm(CheckedDriver):
    """One driver after another, on one device."""

    def run(self, messages: int) -> None:
        """Send about this many more messages, and continue until the driver of the last one is gone."""
        weights = {
            self.control: 20,
            self.play: 20,
            self.record: 20,
            self.listen: 3,
            self.let_time_pass: 26,
            self.be_late: 2,
            self.host: 3,
            self.poke: 2,
        }
        ends = [self.go_home, self.reset, self.reset, self.corrupt, self.stop_a_queue]
        end = self.messages + messages
        while self.messages < end:
            # Most drivers are short-lived; a few send more than the rings' indices can count.
            life = round(10 ** self.rng.uniform(0, 3)) if self.counts["driver"] % 400 else 200_000
            for step in self.rng.choices([*weights], [*weights.values()], k=life):
                step()
                self.collect()
            self.rng.choice(ends)()
            self.next_driver()
            self.play_and_record()

    def next_driver(self) -> None:
        """Negotiate some of the features, and set up queues of some size."""
        rng = self.rng
        if rng.random() < 0.2:
            unknown = 1 << rng.choice([1, 2, 24, 27, 33, 40, 63])
            assert not self.driver.negotiate(rng.choice([0, INDIRECT_DESC | EVENT_IDX, VERSION_1]) | unknown)
        features = VERSION_1 | sum(f for f in (INDIRECT_DESC, EVENT_IDX, F_CTLS) if rng.random() < 0.7)
        sizes = [rng.choice([most, most, 16, 4]) for most in self.device.queue_sizes]
        for index in (EVENTQ, TXQ, RXQ):
            if rng.random() < 0.03:
                sizes[index] = 0
        self.start(features, sizes)

    def play_and_record(self) -> None:
        """Play and record as any driver does. That is exact, whatever happened before."""
        rng = self.rng
        if not {TXQ, RXQ} <= self.driver.queues.keys():
            return
        before = self.counts["played"], self.counts["recorded"]
        if rng.random() < 0.5:  # or it has just woken up
            self.request(struct.pack("<IIII", PCM_INFO, 0, 4, 32), room=132)
        for number, queue, frames, room in ((0, TXQ, rng.randbytes(16), 8), (FIRST_INPUT, RXQ, b"", 24)):
            self.request(set_params(number, S16_STEREO, 64, 16), struct.pack("<II", PREPARE, number))
            assert self.post(queue, struct.pack("<I", number) + frames, room)
            self.kick(queue)
            self.request(struct.pack("<II", START, number))
        self.pass_time(SECOND // 100)
        assert (self.counts["played"], self.counts["recorded"]) == (before[0] + 1, before[1] + 1)
        for number in (0, FIRST_INPUT):
            self.request(struct.pack("<II", STOP, number), struct.pack("<II", RELEASE, number))

    # The end of a driver.

    def go_home(self) -> None:
        """Stop and release everything: all messages come back."""
        for index in (TXQ, RXQ):
            self.kick(index)
        self.run_due()
        for number in range(len(self.streams)):
            self.request(struct.pack("<II", STOP, number), struct.pack("<II", RELEASE, number))
        for index in {TXQ, RXQ} & self.driver.queues.keys():
            ring = self.driver.queues[index]
            assert not ring.tokens
            assert len(ring.free) == ring.size
        assert self.heap.next_deadline() is None
        self.reset()

    def corrupt(self) -> None:
        """Break a ring: the device asks for a reset, and does nothing more before it."""
        rng = self.rng
        self._settle()
        queue = rng.choice([CONTROLQ, TXQ, RXQ])
        ring = self.driver.queues.get(queue)
        if ring is not None and len(ring.free) >= 2:
            break_ring(rng, ring)
            self.driver.kick(queue)
            assert self.driver.read("Status") & NEEDS_RESET
            assert self.driver.ack() & CONFIG_CHANGE
            self.driver.memory.written.clear()
            for _ in range(rng.randrange(20)):
                self.driver.kick(rng.randrange(5))
                self.clock.advance(rng.randrange(SECOND))
                self.heap.run_due(self.clock.now())
            assert not self.driver.memory.written
            assert not self.driver.irq.level
            self.counts["broken"] += 1
        self.reset()

    def stop_a_queue(self) -> None:
        """Take a queue away (QueueReady 0): the device never touches it again, and continues to work."""
        rng = self.rng
        self._settle()
        queue = rng.randrange(4)
        self.driver.write("QueueSel", queue)
        self.driver.write("QueueReady", 0)
        gone = self.driver.queues.pop(queue, None)
        used = gone.used_idx if gone is not None else 0
        control = self.driver.queues.get(CONTROLQ)
        for _ in range(20):
            self.driver.kick(rng.randrange(4))
            if control is not None and len(control.free) > 1:
                self.driver.submit(CONTROLQ, [stream_command(rng, self.model)], [4])
            self.clock.advance(rng.randrange(SECOND // 100))
            self.heap.run_due(self.clock.now())
        assert gone is None or gone.used_idx == used
        for port in self.card.outputs:
            port.data.clear()
        self.counts["stopped queue"] += 1
        self.reset()

    def _settle(self) -> None:
        """Notify the device and let it do everything, including what it does at a driver's first request."""
        for index in range(4):
            self.kick(index)
        self.run_due()
        self.request(struct.pack("<II", RELEASE, 77))

    # What it sends.

    def control(self) -> None:
        """Send some control requests, notifying the device of each or of all together."""
        for _ in range(self.rng.choice([1, 1, 1, 2, 5])):
            request = any_request(self.rng, self.model)
            if not self.post(CONTROLQ, request, room_for(self.rng, request)):
                break
            if self.rng.random() < 0.7:
                self.kick(CONTROLQ)
        self.kick(CONTROLQ)

    def play(self) -> None:
        """Send messages to be played."""
        self._send(TXQ, range(FIRST_INPUT))

    def record(self) -> None:
        """Send messages to be recorded to."""
        self._send(RXQ, range(FIRST_INPUT, sum(STREAMS)))

    def _send(self, queue: int, numbers: range) -> None:
        rng = self.rng
        ring = self.driver.queues.get(queue)
        for _ in range(rng.choice([1, 1, 2, 4])):
            if ring is None or len(ring.tokens) >= IN_FLIGHT:
                return
            ready = [number for number in numbers if self.streams[number].takes_messages]
            number = rng.choice(ready if ready and rng.random() < 0.95 else numbers)
            pcm = self.streams[number].pcm or S16_STEREO
            size = rng.choice([0, 1, 1, 2, 3, 7, 48, 48, 48, 64, 200]) * pcm.frame_size
            if rng.random() < 0.05:
                size = rng.choice([1, size + 1, size + 3, 13, 3000])
            readable = struct.pack("<I", number) + (rng.randbytes(size) if queue == TXQ else b"")
            room = 8 if queue == TXQ else size + 8
            self.post(queue, *(self._spoil(readable, room) if rng.random() < 0.06 else (readable, room)))
            if rng.random() < 0.7:
                self.kick(queue)

    def _spoil(self, readable: bytes, room: int) -> tuple[bytes, int]:
        rng = self.rng
        kind = rng.randrange(4)
        if kind == 0:
            return readable[: rng.randrange(4)], room
        if kind == 1:
            return struct.pack("<I", rng.choice(ODD)) + readable[4:], room
        if kind == 2:
            return readable, rng.choice([0, 1, 7, 8, 9, 12, 16, 100])
        return readable + rng.randbytes(rng.randrange(9)), room

    def listen(self) -> None:
        """Offer buffers for events."""
        rng = self.rng
        for _ in range(rng.choice([1, 1, 1, 3, 64])):
            if not self.post(EVENTQ, rng.choice([b"", b"", b"", b"?"]), rng.choice([8, 8, 8, 8, 16, 20, 7, 0])):
                break
        if rng.random() < 0.8:
            self.kick(EVENTQ)

    # What else happens.

    def host(self) -> None:
        """Plug, unplug, change volumes and mute."""
        rng = self.rng
        if rng.random() < 0.5:
            jack, connected = rng.randrange(2), rng.random() < 0.5
            self.model.plug(jack, connected)
            self.device.jacks.plug(["line", "mic"][jack], connected=connected)
        else:
            number = rng.randrange(4)
            control = list(self.device.controls)[number]
            level = rng.randrange(control.maximum + 1)
            self.model.set(number, (level, level))
            self.device.controls.set(control.name, level)

    def poke(self) -> None:
        """Access registers at any width, in ways that have no effect."""
        rng, transport = self.rng, self.driver.transport
        size = rng.choice([1, 2, 4])
        transport.read(rng.randrange(0x1000) & -size, size)
        transport.write(rng.choice(READ_ONLY), size, rng.getrandbits(8 * size))
        assert self.driver.config(0, 16) == self.config
        for register in CONFIGURATION:
            transport.write(register, 4, rng.choice(ODD))
        self.driver.write("QueueReady", 1)
        self.driver.kick(rng.choice([4, 5, 64, 0xFFFF_FFFF]))
        self.driver.write("Status", self.driver.read("Status"))

    def let_time_pass(self) -> None:
        self.pass_time(round(10 ** self.rng.uniform(2, 7.5)))

    def be_late(self) -> None:
        """Let time pass, and be busy with something else."""
        self.clock.advance(round(10 ** self.rng.uniform(2, 9.5)))
        for stream in self.streams:
            stream.wait(self.clock.now())
        self.rng.choice([self.control, self.play, self.record, self.poke])()
        self.run_due()
