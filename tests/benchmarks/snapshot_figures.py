"""What snapshots cost: how long it takes to go on from one, how large it is, and what many machines share.

python -m tests.benchmarks.snapshots figures
"""

import contextlib
import os
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from emu import Machine, guest
from emu.snapshot.ready import ready

__all__ = ["figures", "hold"]

WRITTEN_MB = 8
RESTORES = 10_000
PYTEST = (
    "import pytest\n@pytest.mark.parametrize('number', range(50))\n"
    "def test_it(fresh_machine, number):\n    assert fresh_machine().console.run('true').status == 0\n"
)


def figures() -> None:
    """Print them all."""
    print(f"load average {os.getloadavg()[0]:.1f}")
    kernel, initrd = guest.files(lambda line: print(line, file=sys.stderr))
    path = ready(kernel, initrd, {}, lambda line: print(line, file=sys.stderr), for_people=True)
    _restoring(path)
    _starting(path)
    _sizes(path)
    _lasting(path)
    _sharing(path)
    _testing()


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} ms ({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f})"


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _restoring(path: Path) -> None:
    with Machine(path, clock="warp") as machine:
        machine.console.run("true")
        state = machine.snapshot()
        seconds = []
        for _ in range(20):
            machine.console.run(f"head -c {WRITTEN_MB}M /dev/zero > /tmp/file")
            seconds.append(_timed(lambda: machine.restore(state)))
        assert machine.console.run("ls /tmp/file").status != 0
    print(f"restored in the same process, after the guest wrote {WRITTEN_MB} MB: {_ms(seconds)}")

    seconds = []
    for _ in range(20):
        with contextlib.ExitStack() as machines:
            seconds.append(_timed(lambda: machines.enter_context(Machine(path, clock="warp"))))
    print(f"a new Machine from the file: {_ms(seconds)}")


def _starting(path: Path) -> None:
    seconds = [_until_prompt([sys.executable, "-m", "emu", "boot", str(path)]) for _ in range(10)]
    print(f"process start to the prompt on a terminal: {_ms(seconds)}")
    seconds = [_until_prompt([sys.executable, "-m", "emu", "boot", "--quick"]) for _ in range(10)]
    print(f"the same with --quick: {_ms(seconds)}")


def _until_prompt(command: list[str]) -> float:
    """Return the seconds until the guest's prompt arrives on a terminal."""
    user, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, env=environment
    ) as process:
        os.close(terminal)
        shown = b""
        while b"# " not in shown:
            shown += os.read(user, 4096)
        seconds = time.perf_counter() - start
        process.kill()
    os.close(user)
    return seconds


def _memory(pid: int | str = "self") -> dict[str, int]:
    """Return what is resident, in kB; Pss counts a page that several share in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}


def _sizes(path: Path) -> None:
    kernel, initrd = guest.files()
    with Machine(kernel, initrd, clock="warp") as machine, tempfile.TemporaryDirectory() as name:
        machine.console.run("true")
        touched = _ram_kb()
        machine.save(Path(name) / "x")
        on_disk = (Path(name) / "x").stat().st_blocks // 2
    print(f"size on disk: {on_disk / 1024:.1f} MiB; RAM that the guest touched: {touched / 1024:.1f} MiB")


def _ram_kb() -> int:
    """Return what is resident of the only machine's RAM, a mapping of its own, in kB."""
    text = Path("/proc/self/smaps").read_text()
    mappings = re.findall(r"^Size: +(\d+) kB.*?^Rss: +(\d+) kB", text, re.MULTILINE | re.DOTALL)
    return sum(int(resident) for size, resident in mappings if int(size) == 256 << 10)


def _lasting(path: Path) -> None:
    with Machine(path, clock="warp") as machine:
        machine.console.run("true")
        state = machine.snapshot()

        def use() -> str:
            parts = len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))
            return f"{_memory()['Rss'] / 1024:.1f} MiB, {parts[0]} threads, {parts[1]} descriptors"

        for number in range(RESTORES + 1):
            if number in (100, RESTORES):
                print(f"after {number} restores: {use()}")
            machine.restore(state)
            machine.run_for(0.0001)


def _sharing(path: Path) -> None:
    totals = []
    for processes, machines in ((1, 1), (1, 32), (4, 8)):
        command = [sys.executable, "-m", "tests.benchmarks.snapshots", "hold", str(path), str(machines)]
        running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)]
        try:
            for one in running:
                assert one.stdout is not None
                one.stdout.readline()
            memory = [_memory(one.pid) for one in running]
        finally:
            for one in running:
                one.communicate(b"\n")
        totals.append(sum(one["Pss"] for one in memory))
        print(f"{processes} x {machines} machines that have run a command: PSS {totals[-1] / 1024:.0f} MiB, "
              f"RSS {sum(one['Rss'] for one in memory) / 1024:.0f} MiB")  # fmt: skip
    print(f"32 x one would be {32 * totals[0] / 1024:.0f} MiB")


def hold(path: str, count: int) -> None:
    """Be so many machines, each of which has run a command, until there is a line on stdin."""
    with contextlib.ExitStack() as machines:
        for _ in range(count):
            machine = machines.enter_context(Machine(path, clock="warp"))
            machine.console.sendline("echo he''llo")
            machine.console.expect("hello\r\n")
        print("ready", flush=True)
        sys.stdin.readline()


def _testing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")
        (Path(folder) / "test_it.py").write_text(PYTEST)
        (Path(folder) / "test_once.py").write_text(PYTEST.replace("range(50)", "range(1)"))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=kept"]

        def seconds(name: str) -> float:
            return _timed(lambda: subprocess.run([*command, name], cwd=folder, stdout=subprocess.DEVNULL, check=True))

        once = [seconds("test_once.py") for _ in range(2)][1]  # the first may have to make the snapshot
        print(f"pytest, each of 50 tests with fresh_machine: {(seconds('test_it.py') - once) / 49 * 1e3:.0f} ms")
