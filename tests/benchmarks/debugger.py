"""What a debugger costs, and how fast it is, on the default guest.

python -m tests.benchmarks.debugger [--rounds 5]

    attached   work in the guest with a debugger that has nothing to do, against the same without one; in turn
    steps      single steps that a debugger asks for, one after the other, in the middle of the kernel's work
    backwards  reverse-continue over a second of guest time, to a breakpoint at its beginning: while a song plays, and
               while the guest computes without a pause
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from emu import Machine, guest
from tests.emu.debug.client import Client

_WORK = {
    "md5sum": "dd if=/dev/zero bs=64k count=600 2>/dev/null | md5sum",
    "system calls": "dd if=/dev/zero of=/dev/null bs=1 count=100000 2>/dev/null",
    "starting programs": "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done",
}
_STEPS = 4000
_PC = 32


@contextmanager
def beside(machine: Machine, work: Callable[[Client], None]) -> Iterator[None]:
    """Let a debugger do ``work`` in a thread of its own, while the machine runs here."""
    port = machine.gdb(wait=True)
    clients = []

    def connect() -> None:
        clients.append(Client(port))
        work(clients[0])

    thread = threading.Thread(target=connect)
    thread.start()
    yield
    machine.run_until(lambda: not thread.is_alive())


def attached(clock: str, rounds: int) -> None:
    """Compare machines with and without a debugger."""
    with Machine(clock=clock) as plain, Machine(clock=clock) as debugged:
        for machine in (plain, debugged):
            machine.console.run("true")

        def go_on(client: Client) -> None:
            client.ask(b"?")
            client.send(b"vCont;c")

        with beside(debugged, go_on):
            pass  # and stay connected
        for name, command in _WORK.items():
            ratios = []
            for _ in range(rounds):
                seconds = []
                for machine in (plain, debugged):
                    start = time.process_time()
                    assert machine.console.run(command, timeout=300).status == 0
                    seconds.append(time.process_time() - start)
                ratios.append(seconds[1] / seconds[0])
            print(f"attached, clock {clock}, {name}: {statistics.median(ratios):.3f} x (median of {rounds})")


def steps(clock: str) -> None:
    """Count single steps."""

    def step(client: Client) -> None:
        client.send(b"vCont;c")
        time.sleep(0.3)
        client.interrupt()
        client.receive()
        start = time.perf_counter()
        for _ in range(_STEPS):
            client.ask(b"vCont;s:1")
        print(f"steps, clock {clock}: {_STEPS / (time.perf_counter() - start):.0f} a second")
        client.ask(b"D")

    with Machine(clock=clock) as machine:
        machine.console.run("true")
        machine.console.send("while true; do ls / > /dev/null; done\r")
        with beside(machine, step):
            pass


def backwards(name: str, command: str, rounds: int) -> None:
    """Go back over a second of guest time."""
    symbols = guest.files()[0].with_name("System.map").read_text().splitlines()
    address = next(int(line.split()[0], 16) for line in symbols if line.endswith(" __do_sys_newuname"))
    results: list[float] = []

    def work(client: Client) -> None:
        client.ask(b"Z0,%x,4" % address)
        client.ask(b"vCont;c")
        client.ask(b"vCont;c")
        for _ in range(rounds):
            start = time.perf_counter()
            assert client.ask(b"bc").startswith(b"T05hwbreak"), "there was nothing"
            results.append(time.perf_counter() - start)
            assert client.register(_PC) == address
            client.ask(b"vCont;c")
        client.ask(b"z0,%x,4" % address)
        client.ask(b"D")

    with Machine(clock="warp") as machine:
        machine.console.run("true")
        with beside(machine, work):
            machine.console.run(f"uname > /dev/null; {command}; uname > /dev/null", timeout=300)
    print(f"reverse-continue over 1 s of {name}: {results[0]:.2f} s at first, then {statistics.median(results):.2f} s")


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True)
def main(rounds: int) -> None:
    """Print all of it."""
    steps("host")
    steps("warp")
    backwards("sound", "aplay -q -D hw:0,0 /root/tone.wav", rounds)
    backwards("computing", "i=0; while [ $i -lt 76000 ]; do i=$((i+1)); done", rounds)
    for clock in ("host", "warp"):
        attached(clock, rounds)


if __name__ == "__main__":
    main()
