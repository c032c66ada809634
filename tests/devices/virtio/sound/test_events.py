"""devices/virtio/sound/events.py: whatever the driver does with its event queue, it finally knows the latest state."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices.virtio.fake_driver import DRIVER_OK
from tests.devices.virtio.sound.guest import (
    CHMAP_INFO,
    CTL_INFO,
    CTL_NOTIFY,
    CTL_READ,
    CTL_WRITE,
    EVENTQ,
    JACK_CONNECTED,
    JACK_DISCONNECTED,
    JACK_INFO,
    OK,
    PCM_INFO,
    Guest,
)


@pytest.fixture
def guest():
    guest = Guest()
    guest.query(JACK_INFO, 0, 2, 24)
    return guest


@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_buffer_that_is_too_small_comes_back_empty(guest, size):
    guest.listen(2, size)
    guest.listen(1, 20)
    guest.device.jacks.plug("mic", connected=False)
    *small, good = guest.driver.completed(EVENTQ)
    assert [(done.used_len, done.data) for done in small] == [(0, b"\xaa" * size)] * 2
    assert (good.used_len, good.data) == (8, struct.pack("<II", JACK_DISCONNECTED, 1) + b"\xaa" * 12)


def test_a_buffer_that_can_only_be_read(guest):
    guest.driver.submit(EVENTQ, [bytes(100)], [])
    guest.driver.kick(EVENTQ)
    guest.device.jacks.plug("mic", connected=False)
    assert [done.used_len for done in guest.driver.completed(EVENTQ)] == [0]
    guest.driver.ack()
    guest.listen()
    assert guest.heard() == [(JACK_DISCONNECTED, 1)]


def test_a_buffer_in_pieces(guest):
    guest.driver.submit(EVENTQ, [b"?"], [1, 3, 4], indirect=True)
    guest.device.jacks.plug("line", connected=False)
    assert guest.heard() == [(JACK_DISCONNECTED, 0)]


def test_buffers_are_used_without_a_kick(guest):
    """Linux does not kick when it first fills the queue."""
    guest.driver.submit(EVENTQ, [], [8])
    guest.device.jacks.plug("line", connected=False)
    assert guest.heard() == [(JACK_DISCONNECTED, 0)]


def test_all_news_with_one_interrupt(guest):
    guest.device.jacks.plug("line", connected=False)
    guest.device.jacks.plug("mic", connected=False)
    edges = guest.driver.irq.edges
    guest.listen(64)
    assert guest.driver.irq.edges == edges + 1
    assert guest.heard() == [(JACK_DISCONNECTED, 0), (JACK_DISCONNECTED, 1)]


def test_a_full_queue_of_useless_buffers(guest):
    guest.listen(64, 7)
    guest.device.jacks.plug("mic", connected=False)
    assert len(guest.driver.completed(EVENTQ)) == 64
    guest.driver.ack()
    guest.listen()
    assert guest.heard() == [(JACK_DISCONNECTED, 1)]


def test_no_event_queue_at_all():
    guest = Guest()
    guest.driver.start(sizes=[64, 0, 64, 64])
    guest.query(JACK_INFO, 0, 2, 24)
    guest.device.jacks.plug("mic", connected=False)
    guest.driver.kick(EVENTQ)
    assert guest.driver.ack() == 0


def test_no_driver_at_all():
    guest = Guest()
    guest.driver.reset()
    guest.device.jacks.plug("mic", connected=False)
    guest.device.controls.set("Capture Switch", 0)
    assert not guest.driver.irq.level


def test_linux_from_its_probe_on():
    """It fills the queue before DRIVER_OK and does not kick; from its interrupt it queues each buffer again."""
    guest = Guest()
    driver = guest.driver
    assert driver.negotiate()
    for index, size in enumerate(guest.device.queue_sizes):
        driver.set_up_queue(index, size)
    for _ in range(64):
        driver.submit(EVENTQ, [], [8])
    guest.device.jacks.plug("mic", connected=False)
    driver.add_status(DRIVER_OK)
    counts = struct.unpack("<IIII", driver.config(0, 16))
    for code, count, size in zip((JACK_INFO, PCM_INFO, CHMAP_INFO, CTL_INFO), counts, (24, 32, 24, 96), strict=True):
        reply = guest.query(code, 0, count, size, room=4 + count * size)
        assert (len(reply), reply[:4]) == (4 + count * size, struct.pack("<I", OK))
    assert guest.heard() == []
    for turn in range(200):
        guest.device.jacks.plug("line", connected=bool(turn % 2))
        guest.device.jacks.plug("mic", connected=not turn % 2)
        line, mic = (JACK_CONNECTED, JACK_DISCONNECTED) if turn % 2 else (JACK_DISCONNECTED, JACK_CONNECTED)
        assert guest.heard() == [(line, 0), (mic, 1)]
        for _ in range(2):
            driver.submit(EVENTQ, [], [8])
            if driver.wants_kick(EVENTQ):
                driver.kick(EVENTQ)


changes = st.lists(
    st.one_of(
        st.tuples(st.just("plug"), st.sampled_from(["line", "mic"]), st.booleans()),
        st.tuples(st.just("set"), st.sampled_from([1, 3]), st.integers(0, 1)),
        st.tuples(st.just("write"), st.sampled_from([1, 3]), st.integers(0, 1)),
        st.tuples(st.just("listen"), st.integers(1, 3), st.sampled_from([8, 8, 8, 7, 16])),
        st.just(("sleep",)),
        st.just(("probe",)),
    ),
    max_size=40,
)


class Application:
    """A driver and what it knows: jacks as reported, controls as read when it was notified."""

    def __init__(self) -> None:
        self.guest = Guest()
        self.probe()

    def probe(self) -> None:
        self.guest.driver.reset()
        self.guest.driver.start()
        self.jacks, self.controls = [], {}
        self.listen(2, 8)
        reply = self.guest.query(JACK_INFO, 0, 2, 24)
        self.jacks = [bool(reply[4 + 24 * n + 16]) for n in range(2)]
        self.guest.query(CTL_INFO, 0, 4, 96)
        self.controls = {number: self.read(number) for number in (1, 3)}

    def sleep(self) -> None:
        self.guest.driver.reset()
        self.guest.driver.start()

    def read(self, control: int) -> tuple[int, int]:
        return struct.unpack_from("<ii", self.guest.request(struct.pack("<II", CTL_READ, control), 516), 4)

    def plug(self, name: str, connected: bool) -> None:
        self.guest.device.jacks.plug(name, connected=connected)

    def set(self, control: int, value: int) -> None:
        names = ["", "Master Playback Switch", "", "Capture Switch"]
        self.guest.device.controls.set(names[control], value)

    def write(self, control: int, value: int) -> None:
        self.guest.request(struct.pack("<IIii", CTL_WRITE, control, value, value))

    def listen(self, buffers: int, size: int) -> None:
        if len(self.guest.driver.queues[EVENTQ].free) >= buffers:
            self.guest.listen(buffers, size)

    def hear(self) -> None:
        for done in self.guest.driver.completed(EVENTQ):
            assert done.used_len == (8 if len(done.data) >= 8 else 0)
            if done.used_len:
                code, data = struct.unpack_from("<II", done.data)
                if code == CTL_NOTIFY:
                    assert data >> 16 == 1
                    assert data & 0xFFFF in self.controls, "not set up yet"
                    self.controls[data & 0xFFFF] = self.read(data & 0xFFFF)
                else:
                    assert code in {JACK_CONNECTED, JACK_DISCONNECTED}
                    connected = code == JACK_CONNECTED
                    assert self.jacks[data] is not connected, "no change"
                    self.jacks[data] = connected


@settings(deadline=None, max_examples=300)
@given(changes)
def test_the_driver_finally_knows_everything(sequence):
    application = Application()
    for name, *arguments in sequence:
        getattr(application, name)(*arguments)
        application.hear()
    application.listen(4, 8)
    application.read(1)  # or a driver that has just woken up would have to wait
    application.hear()
    device = application.guest.device
    assert application.jacks == [jack.connected for jack in device.jacks]
    assert application.controls == {
        number: control.values for number, control in enumerate(device.controls) if number in application.controls
    }
