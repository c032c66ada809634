"""emu/timing/signals.py: whatever a handler raises comes out of ``run_until``, once, and the guest never notices."""

import os
import random
import signal
import threading
import time
from collections import Counter
from types import FrameType

import pytest

from emu.machine import Machine
from emu.timing.signals import HeldSignals, posts
from tests.emu.asm import A0, A1, A6, A7, S0, T1, T2, addi, andi, bne, ecall, lbu, li, sb
from tests.emu.tiny import SPIN, say, write_image

_UART = 0x1000_0000
_SCRATCH = 7
_VERSION, _GET_SPEC_VERSION = 0x10, 0

#: Calls firmware, and writes to a register and reads it, for ever; complains when either did not happen.
CHECKING = [
    li(S0, _UART), li(T2, 0),
    "again",
    addi(T2, T2, 1), andi(T2, T2, 0x7F), sb(T2, S0, _SCRATCH), lbu(T1, S0, _SCRATCH), bne(T1, T2, "lost"),
    li(A0, -1), li(A1, 0), li(A7, _VERSION), li(A6, _GET_SPEC_VERSION), ecall(),
    bne(A0, 0, "lost"), bne(A1, 0, "again"),
    "lost", say("lost"), SPIN,
]  # fmt: skip


class AlarmError(Exception):
    """The alarm rang."""


def on_alarm(_number: int, _frame: FrameType | None) -> None:
    raise AlarmError


@pytest.fixture
def alarm():
    before = signal.signal(signal.SIGALRM, on_alarm)
    yield
    signal.signal(signal.SIGALRM, before)


def test_a_thousand_signals_are_raised_once_each_and_the_guest_is_unharmed(tmp_path, alarm):
    sent, caught = Counter(), Counter()
    ready = threading.Event()
    rng = random.Random(1)

    def send() -> None:
        for _ in range(1000):
            ready.wait()
            ready.clear()
            time.sleep(rng.random() / 1000)
            number = rng.choice([signal.SIGINT, signal.SIGALRM])
            sent[number] += 1
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    with Machine(write_image(tmp_path / "Image", CHECKING), memory="32M") as machine:
        sender.start()
        while caught.total() < 1000:
            try:
                ready.set()
                machine.run()
            except KeyboardInterrupt:
                caught[signal.SIGINT] += 1
            except AlarmError:
                caught[signal.SIGALRM] += 1
        sender.join()
        machine.run_for(0.05)  # and no more of them
        assert caught == sent
        assert machine.console.text == b""
        assert machine.counters.traps > 1000


def test_handlers_are_back_after_the_run(tmp_path, alarm):
    before = signal.getsignal(signal.SIGINT)
    with Machine(write_image(tmp_path / "Image", SPIN), memory="32M") as machine:
        machine.run_for(0.001)
        assert signal.getsignal(signal.SIGALRM) is on_alarm
        assert signal.getsignal(signal.SIGINT) is before
        machine.events.at(machine.clock.now(), lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN))
        machine.run_for(0.001)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN  # what somebody sets meanwhile stays


def test_held_ones_wait_for_the_release_and_others_do_not(alarm):
    rings = []
    signals = HeldSignals(lambda: rings.append(True))
    with signals:
        signals.hold()
        signal.raise_signal(signal.SIGALRM)
        assert rings == [True]
        with pytest.raises(AlarmError):
            signals.release()
        signals.release()  # there is nothing left
        with pytest.raises(AlarmError):
            signal.raise_signal(signal.SIGALRM)
    assert rings == [True]


def test_of_two_that_wait_both_are_called(alarm):
    signals = HeldSignals(lambda: None)
    with signals:
        signals.hold()
        signal.raise_signal(signal.SIGALRM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as raised:
            signals.release()
    assert isinstance(raised.value.__context__, AlarmError)


def test_a_handler_that_posts_is_not_held_back():
    seen = []
    before = signal.signal(signal.SIGALRM, posts(lambda number, _frame: seen.append(number)))
    try:
        with (signals := HeldSignals(lambda: None)):
            signals.hold()
            signal.raise_signal(signal.SIGALRM)
            assert seen == [signal.SIGALRM]
            signals.release()
    finally:
        signal.signal(signal.SIGALRM, before)
