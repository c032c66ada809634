"""Calls to the built-in firmware (SBI 2.0), by name."""

from collections.abc import Callable, Sequence

from devices.clint import ns_from_ticks
from emu.cpu.hart import SupervisorCalls
from emu.trace.record import Detail, Emit

__all__ = ["watch"]

_SET_TIMER = (0x54494D45, 0)
_LEGACY_SET_TIMER = 0
_NAMES = {
    0x10: ("get_spec_version", "get_impl_id", "get_impl_version", "probe_extension", "get_mvendorid", "get_marchid",
           "get_mimpid"),
    0x54494D45: ("set_timer",),
    0x735049: ("send_ipi",),
    0x52464E43: ("remote_fence_i", "remote_sfence_vma", "remote_sfence_vma_asid"),
    0x48534D: ("hart_start", "hart_stop", "hart_get_status", "hart_suspend"),
    0x53525354: ("system_reset",),
    0x4442434E: ("console_write", "console_read", "console_write_byte"),
}  # fmt: skip
_LEGACY = {0: "legacy set_timer", 1: "legacy console_putchar", 2: "legacy console_getchar", 8: "legacy shutdown"}
_ERRORS = {
    0: "SUCCESS", -1: "FAILED", -2: "NOT_SUPPORTED", -3: "INVALID_PARAM", -5: "INVALID_ADDRESS",
    -6: "ALREADY_AVAILABLE",
}  # fmt: skip
_NEVER = (1 << 64) - 1


def watch(calls: SupervisorCalls, emit: Emit, now: Callable[[], int]) -> SupervisorCalls:
    """Watch the calls and their results."""

    def call(extension: int, function: int, arguments: Sequence[int]) -> tuple[int, int | None]:
        given = tuple(arguments[:3])  # of the six, no call uses more; the answer may overwrite them
        error, value = calls(extension, function, arguments)
        detail: Detail = {}
        if (extension, function) == _SET_TIMER or extension == _LEGACY_SET_TIMER:
            detail["in_us"] = "never" if given[0] == _NEVER else (ns_from_ticks(given[0]) - now()) / 1000
        else:
            detail["arguments"] = " ".join(f"{argument:#x}" for argument in given)
        detail["result"] = _ERRORS.get(error, str(error))
        if value:
            detail["value"] = f"{value:#x}"
        emit("sbi", "sbi", _name(extension, function), detail)
        return error, value

    return call


def _name(extension: int, function: int) -> str:
    functions = _NAMES.get(extension, ())
    if function < len(functions):
        return functions[function]
    return _LEGACY.get(extension, f"extension {extension:#x} function {function}")
