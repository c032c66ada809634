"""What holds up the CPU's thread: the longest callbacks and events, and the latest turns with what happened in them.

python -m tests.benchmarks.turns [--disk apps.img,snapshot] [--memory 1G] [COMMAND ...]

A callback is anything the guest waits for: a register, an exception, a call to the firmware, an event, a message to
the machine, the console. A turn is a stretch of CPU execution; it is late by how long after its deadline it ends. Each
is shown with the time this thread was on a processor: where that is less, the host ran something else.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from emu import Machine
from emu.console import Console
from emu.cpu.codehook import CodeHook
from emu.cpu.engine import Engine
from emu.cpu.hart import Hart
from emu.cpu.native import Native
from emu.timing.doorbell import Doorbell
from emu.timing.events import DeadlineHeap
from emu.timing.loop import Loop

LIMIT_NS = 500_000
WORK = [
    "i=0; while [ $i -lt 300 ]; do /usr/bin/env true; i=$((i+1)); done",
    "hackbench -g 2 -l 60",
    "aplay -q -D hw:0,0 /root/tone.wav",
]


class Stretch(NamedTuple):
    """Something that took time: wall clock and processor, in ns."""

    wall: int
    processor: int
    name: str

    def __str__(self) -> str:
        return f"{self.wall / 1e6:8.2f} ms, {self.processor / 1e6:7.2f} of it on a processor: {self.name}"


class Watch:
    """Notes what takes long. Of nested callbacks, only the outermost counts."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.count = self.over = 0
        self.in_turn: list[Stretch] = []
        self._depth = 0

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Measure the body of the with statement."""
        wall, processor = time.perf_counter_ns(), time.thread_time_ns()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                took = Stretch(time.perf_counter_ns() - wall, time.thread_time_ns() - processor, name)
                self.count += 1
                self.over += took.processor > LIMIT_NS
                self.in_turn.append(took)
                if took.wall > LIMIT_NS // 4:
                    self.stretches.append(took)

    def around(self, owner: Any, method: str, name: Callable[..., str]) -> None:
        """Measure each call of a method; ``name`` gets its arguments."""
        inner = getattr(owner, method)

        def outer(*arguments: Any, **options: Any) -> Any:
            with self.named(name(*arguments)):
                return inner(*arguments, **options)

        setattr(owner, method, outer)


def describe(action: Callable[..., Any]) -> str:
    """Name the function."""
    function = getattr(action, "func", action)
    return str(getattr(function, "__qualname__", function))


def install(watch: Watch, late: list[tuple[int, str]]) -> None:
    """Watch all machines from now on."""
    for method in ("synchronize_code", "flush_tlb", "_on_rdtime"):
        watch.around(Engine, method, lambda *_arguments, method=method: method)
    watch.around(Native, "written", lambda *_arguments: "RAM was written to")
    watch.around(CodeHook, "_on_translated", lambda *_arguments: "code was translated")
    watch.around(Hart, "_exception", lambda _hart, cause, _pc: f"exception {cause}")
    watch.around(Console, "flush", lambda *_arguments: "console")
    watch_devices(watch)
    watch_turns(watch, late)
    began = 0

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "stop":
            took = time.perf_counter_ns() - began
            watch.stretches.append(Stretch(took, took, f"garbage collection, generation {info['generation']}"))
        began = time.perf_counter_ns()

    gc.callbacks.append(collected)


def watch_devices(watch: Watch) -> None:
    """Measure each register access and each event."""
    map_device, at = Engine.map_device, DeadlineHeap.at

    def watched_device(self: Engine, base: int, size: int, read: Any, write: Any) -> None:
        def watched_read(offset: int, width: int) -> int:
            with watch.named(f"read {base + offset:#x}"):
                return int(read(offset, width))

        def watched_write(offset: int, width: int, value: int) -> None:
            with watch.named(f"write {base + offset:#x} = {value:#x}"):
                write(offset, width, value)

        map_device(self, base, size, watched_read, watched_write)

    def watched_at(self: DeadlineHeap, deadline: int, action: Callable[[], None]) -> Any:
        def watched() -> None:
            with watch.named(f"event {describe(action)}"):
                action()

        return at(self, deadline, watched)

    Engine.map_device, DeadlineHeap.at = watched_device, watched_at


def watch_turns(watch: Watch, late: list[tuple[int, str]]) -> None:
    """Note each turn of the CPU that ends late."""
    step, enter, run = Loop._step, Doorbell.enter, Engine.run
    now: Callable[[], int] = time.monotonic_ns
    until = 0

    def watched_step(self: Loop, longest: float | None) -> None:
        nonlocal now
        now = self._clock.now
        step(self, longest)

    def watched_enter(self: Doorbell, deadline: int) -> None:
        nonlocal until
        until = deadline
        enter(self, deadline)

    def watched_run(self: Engine) -> bool:
        watch.in_turn.clear()
        began, processor = now(), time.thread_time_ns()
        waits = run(self)
        over = now() - until
        if over > LIMIT_NS:
            ran = (time.thread_time_ns() - processor) / 1e6
            total = sum(stretch.wall for stretch in watch.in_turn) / 1e6
            what = f"planned {(until - began) / 1e6:.1f} ms, on a processor for {ran:.1f}; "
            what += f"{len(watch.in_turn)} callbacks took {total:.1f}"
            if watch.in_turn:
                what += f", the longest {max(watch.in_turn)}"
            late.append((over, what))
        return waits

    Loop._step, Doorbell.enter, Engine.run = watched_step, watched_enter, watched_run


def show(title: str, watch: Watch, late: list[tuple[int, str]]) -> None:
    """Print what was noted since the last time, and forget it."""
    print(f"{title}: {watch.count} callbacks and events, {watch.over} of them on a processor for more than 0.5 ms")
    for stretch in sorted(watch.stretches, reverse=True)[:6]:
        print(f"  {stretch}")
    print(f"  {len(late)} turns late by more than 0.5 ms")
    for over, what in sorted(late, reverse=True)[:4]:
        print(f"  {over / 1e6:8.2f} ms late, {what}")
    watch.stretches.clear()
    late.clear()
    watch.count = watch.over = 0


@click.command()
@click.option("--disk", default=None)
@click.option("--memory", default="256M")
@click.argument("commands", nargs=-1)
def main(disk: str | None, memory: str, commands: tuple[str, ...]) -> None:
    """Print what held the thread up in each command, or in a boot and some work."""
    watch, late = Watch(), list[tuple[int, str]]()
    install(watch, late)
    with Machine(disk=disk, memory=memory) as machine:
        machine.console.run("true")
        show("boot", watch, late)
        for command in commands or WORK:
            status = machine.console.run(command, timeout=600).status
            show(
                f"{command[:60]} (status {status}, latest period {machine.counters.lateness_max_ns / 1e6:.2f} ms)",
                watch,
                late,
            )


if __name__ == "__main__":
    main()
