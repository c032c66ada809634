"""Tests for sweeps of tiny kernels, good ones and bad ones."""

import contextlib
import ctypes
import os
import signal
import threading
import time
from pathlib import Path

LEFT = []


def prints(machine, **case):
    """What the guest has printed, and in which process."""
    machine.run()
    return bytes(machine.console.text), os.getpid()


def meets(machine, n, folder):
    """Wait until another process has a case, too; what the guest has printed, and in which process."""
    (Path(folder) / str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < 2:
        time.sleep(0.01)
    return prints(machine)


def nothing(machine, n):
    return n


def letters(machine, n):
    return set("abcdefghijklmnop")


def seed_of(machine, **case):
    return machine.chance.seed


def hangs(machine, n, mark):
    if n == 1:
        Path(mark).touch()
    while n == 1:
        pass


def hangs_in_c(machine, n, mark):
    if n == 1:
        Path(mark).touch()
        ctypes.PyDLL(None).pause()  # which keeps the interpreter's lock


def stuck_guest(machine, n, mark):
    machine.console.expect("still here")
    if n == 1:
        Path(mark).touch()
        machine.run()


def segfaults(machine, n):
    machine.run()
    if n == 1:
        ctypes.string_at(0)


def exits(machine, n):
    if n == 1:
        os._exit(3)


def is_killed(machine, n):
    if n == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def leaks_all(machine, n):
    """More than the 400 MB that it may have, and not more than a host has, where nobody looks for some time."""
    while n == 1:
        if len(LEFT) < 600:
            LEFT.append(bytearray(b"x" * (1 << 20)))
        else:
            time.sleep(0.01)


def leaves_threads(machine, n):
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return os.getpid()


def unpicklable_value(machine, n):
    return (lambda: n) if n == 1 else n


def unpicklable_error(machine, n):
    class OddError(Exception):
        def __reduce__(self):
            raise TypeError

        def __str__(self):
            raise ValueError

    if n == 1:
        raise OddError


def says_no(machine, n):
    machine.run()
    print("about to fail")
    assert n != 1


def shuts_down_python(machine, n):
    if n == 1:
        raise SystemExit(5)


def leaves_a_child_with_the_channel(machine, n):
    if n == 1:
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)


def does(machine, n, how):
    return globals()[how](machine, 1)


def by_the_clock(machine, n):
    """Not the same twice: the guest echoes what the host's clock says."""
    machine.console.send(f"{time.time_ns() if n == 1 else n}\x04")
    machine.run()


def notes(machine, n, folder, wait):
    """Write down that case ``n`` has begun; the first then waits."""
    with (Path(folder) / str(n)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while wait and n == 0:
        with contextlib.suppress(OSError):
            time.sleep(0.01)
    return n
