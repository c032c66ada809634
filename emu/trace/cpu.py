"""The hart: when it runs and waits, its timer, its exceptions."""

from collections.abc import Callable

from devices.contracts import IrqLine
from emu.cpu.hart import CAUSES, ECALL
from emu.trace.record import Emit

__all__ = ["watch_exceptions", "watch_run", "watch_timer", "watch_wait"]

_TRACK = "hart 0"
Sleep = Callable[[float], None]


def watch_run(run: Callable[[], bool], emit: Emit, now: Callable[[], int]) -> Callable[[], bool]:
    """Watch each stretch during which the CPU runs, and what ends it: WFI or an event that is due."""

    def watched() -> bool:
        began = now()
        waits = run()
        emit("run", _TRACK, "running", {"until": "WFI" if waits else "event"}, since=began)
        return waits

    return watched


def watch_wait(
    wait: Callable[[int | None, Sleep], None], emit: Emit, now: Callable[[], int]
) -> Callable[[int | None, Sleep], None]:
    """Watch how long the clock makes it wait."""

    def watched(deadline: int | None, sleep: Sleep) -> None:
        began = now()
        wait(deadline, sleep)
        if now() != began:  # under the warp clock, none passes until a message comes
            emit("run", _TRACK, "waiting", {}, since=began)

    return watched


def watch_timer(line: IrqLine, emit: Emit, now: Callable[[], int]) -> IrqLine:
    """Watch the timer's line: it rises when the time comes, and falls when the guest sets the timer again."""
    raised: int | None = None

    def set_level(level: bool) -> None:
        nonlocal raised
        if level and raised is None:
            raised = now()
            emit("timer", "timer", "expired", {})
        elif not level and raised is not None:
            emit("timer", "timer", "pending", {"until": "set again"}, since=raised)
            raised = None
        line(level)

    return set_level


def watch_exceptions(handler: Callable[[int, int], None], emit: Emit) -> Callable[[int, int], None]:
    """Watch the exceptions that are taken or emulated."""
    names = {**CAUSES, ECALL: "ecall"}  # the CPU does not say from which mode

    def watched(cause: int, pc: int) -> None:
        emit("trap", "traps", names.get(cause, f"cause {cause}"), {"pc": f"{pc:#x}"})
        handler(cause, pc)

    return watched
