from collections.abc import Callable

from emu.timing.events import DeadlineHeap


def note(log: list[str], what: str) -> Callable[[], None]:
    return lambda: log.append(what)


def test_in_the_order_of_deadlines_and_equal_ones_as_asked_for() -> None:
    heap, log = DeadlineHeap(), []
    for deadline, what in ((30, "d"), (10, "a"), (20, "b"), (20, "c")):
        heap.at(deadline, note(log, what))
    assert heap.next_deadline() == 10
    heap.run_due(20)
    assert log == ["a", "b", "c"]
    heap.run_due(29)
    assert log == ["a", "b", "c"]
    heap.run_due(30)
    assert log == ["a", "b", "c", "d"]
    assert heap.next_deadline() is None


def test_cancelled_before_and_after_and_by_another() -> None:
    heap, log = DeadlineHeap(), []
    first = heap.at(1, note(log, "first"))
    first.cancel()
    assert heap.next_deadline() is None
    third = heap.at(3, note(log, "third"))
    second = heap.at(2, third.cancel)
    heap.run_due(5)
    second.cancel()
    assert log == []


def test_an_action_in_the_past_waits_for_the_next_call_only() -> None:
    heap, log = DeadlineHeap(), []
    heap.at(10, lambda: heap.at(5, note(log, "past")) and None)
    heap.run_due(20)
    assert (log, heap.next_deadline()) == ([], 5)
    heap.run_due(20)
    assert log == ["past"]


def test_an_action_that_asks_for_itself_for_ever_does_not_hang_the_machine() -> None:
    heap, runs = DeadlineHeap(), []

    def again() -> None:
        runs.append(0)
        heap.at(0, again)

    heap.at(0, again)
    for _ in range(5):
        heap.run_due(100)
    assert len(runs) == 5


def test_an_action_that_raises_is_done_and_the_others_are_not_lost() -> None:
    heap, log = DeadlineHeap(), []

    def fail() -> None:
        raise LookupError

    heap.at(1, fail)
    heap.at(2, note(log, "next"))
    try:
        heap.run_due(5)
    except LookupError:
        heap.run_due(5)
    assert log == ["next"]


def test_earlier_is_told_only_of_what_comes_nearer() -> None:
    told: list[int] = []
    heap = DeadlineHeap(told.append)
    for deadline in (50, 60, 40, 40, 10):
        heap.at(deadline, lambda: None)
    assert told == [50, 40, 10]


def test_a_million_cancelled_events_take_no_room() -> None:
    heap = DeadlineHeap()
    heap.at(1 << 60, lambda: None)
    for n in range(50_000):
        heap.at((1 << 40) - n, lambda: None).cancel()
    assert len(heap._heap) < 1000
    assert heap.next_deadline() == 1 << 60


def test_sweeping_keeps_order_and_what_is_asked_for_meanwhile() -> None:
    heap, log = DeadlineHeap(), []
    for n in range(500):
        event = heap.at(n, note(log, str(n)))
        if n % 3:
            event.cancel()
    heap.run_due(1000)
    assert log == [str(n) for n in range(0, 500, 3)]


def test_what_is_asked_for_anew_is_in_its_old_place() -> None:
    heap, log = DeadlineHeap(), []
    events = {name: heap.at(deadline, note(log, name)) for name, deadline in zip("abcd", (7, 5, 7, 7), strict=True)}
    events["c"].cancel()
    moments, state = {name: events[name].moment for name in "dba"}, heap.state()

    anew = DeadlineHeap()
    anew.at(1, note(log, "forgotten"))
    anew.restore(state)
    for name, moment in moments.items():
        anew.resume(moment, note(log, name))
    anew.at(7, note(log, "new"))
    anew.run_due(7)
    assert log == ["b", "a", "d", "new"]


def test_two_events_of_one_moment_do_no_harm() -> None:
    heap, log = DeadlineHeap(), []
    for name in "abc":
        heap.resume((1, 1), note(log, name))
    heap.run_due(1)
    assert not log, "it is as if they had been asked for meanwhile"
    heap.restore({"order": 5})
    for name in "abc":
        heap.resume((1, 1), note(log, name))
    heap.run_due(1)
    assert sorted(log) == ["a", "b", "c"]
