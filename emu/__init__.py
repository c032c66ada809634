"""pyemu: a RISC-V machine in Python that boots Linux and plays sound bit-exactly.

    from emu import Machine

    with Machine(audio="wav:out.wav", clock="warp") as machine:
        status, output = machine.console.run("aplay -D hw:0,0 /root/tone.wav")
        print(status, machine.audio.frames.shape)

``__all__`` is the public interface. Each name is loaded on first use, so that the command line, and code that needs
only the errors, starts without the machine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devices.audio import AudioBackend, Loopback, NullSink, WavSink
    from devices.errors import MachineError, MissingPackageError, PyemuError, UsageError
    from devices.net.base import NetBackend
    from devices.net.wire import Wire
    from devices.power import PowerAction, PowerRequest
    from devices.virtio.disk import open_disk
    from emu.console import CommandResult, ExpectError
    from emu.counters import Counters
    from emu.machine import Machine
    from emu.recording import ReplayError
    from emu.shell import ShellError
    from emu.snapshot.snapshot import Snapshot
    from emu.timing.clock import Clock, HostClock, ManualClock
    from emu.timing.warp import WarpClock
    from emu.trace import Record, Trace, TraceFile

__all__ = [
    "AudioBackend",
    "Clock",
    "CommandResult",
    "Counters",
    "ExpectError",
    "HostClock",
    "Loopback",
    "Machine",
    "MachineError",
    "ManualClock",
    "MissingPackageError",
    "NetBackend",
    "NullSink",
    "PowerAction",
    "PowerRequest",
    "PyemuError",
    "Record",
    "ReplayError",
    "ShellError",
    "Snapshot",
    "Trace",
    "TraceFile",
    "UsageError",
    "WarpClock",
    "WavSink",
    "Wire",
    "open_disk",
]

_MODULES = {
    "devices.audio": ("AudioBackend", "Loopback", "NullSink", "WavSink"),
    "devices.net.base": ("NetBackend",),
    "devices.net.wire": ("Wire",),
    "devices.power": ("PowerAction", "PowerRequest"),
    "devices.virtio.disk": ("open_disk",),
    "emu.timing.clock": ("Clock", "HostClock", "ManualClock"),
    "emu.timing.warp": ("WarpClock",),
    "emu.console": ("CommandResult", "ExpectError"),
    "emu.counters": ("Counters",),
    "devices.errors": ("MachineError", "MissingPackageError", "PyemuError", "UsageError"),
    "emu.machine": ("Machine",),
    "emu.recording": ("ReplayError",),
    "emu.shell": ("ShellError",),
    "emu.snapshot.snapshot": ("Snapshot",),
    "emu.trace": ("Record", "Trace", "TraceFile"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
