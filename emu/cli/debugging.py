"""What the option ``--gdb`` means."""

from devices.errors import UsageError
from emu.machine import Machine
from emu.terminal.terminal import say

__all__ = ["debugged", "parse"]

_LOOPBACK = "127.0.0.1"
_WAIT = ",wait"


def parse(spec: str) -> tuple[str, int, bool]:
    """Parse [HOST:]PORT[,wait]; raises UsageError."""
    wait = spec.endswith(_WAIT)
    host, _, port = spec.removesuffix(_WAIT).rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 1 << 16):
        raise UsageError(f"--gdb {spec}: that is not [HOST:]PORT[,wait], like 1234")
    return host.strip("[]") or _LOOPBACK, int(port), wait


def debugged(machine: Machine, spec: str) -> Machine:
    """Let gdb connect to ``machine``, and say how; raises UsageError, with the machine closed."""
    try:
        host, port, wait = parse(spec)
        port = machine.gdb(port, host, wait=wait)
    except BaseException:
        machine.close()
        raise
    place = "" if host == _LOOPBACK else host
    waits = "; the machine waits for it" if wait else ""
    say(f"for gdb: gdb-multiarch vmlinux -ex 'target remote {place}:{port}'{waits}")
    return machine
