"""The built-in firmware's supervisor calls: SBI 2.0 for one hart.

BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN and four legacy calls; every other call is answered NOT_SUPPORTED.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from devices.contracts import GuestMemory, IrqLine, OutsideRamError
from devices.power import PowerAction, PowerRequest, PowerSwitch
from devices.stimer import SetTimer

__all__ = ["Sbi", "SbiHart"]

_SUCCESS, _FAILED, _NOT_SUPPORTED, _INVALID_PARAM, _INVALID_ADDRESS, _ALREADY_AVAILABLE = 0, -1, -2, -3, -5, -6

_BASE, _TIME, _IPI, _RFENCE, _HSM, _SRST, _DBCN = (
    0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x4442434E,
)  # fmt: skip
_LEGACY_SET_TIMER, _LEGACY_PUTCHAR, _LEGACY_GETCHAR, _LEGACY_SHUTDOWN = 0, 1, 2, 8

_SPEC_VERSION = 2 << 24
_IMPLEMENTATION_ID = 0x7079  # "py"; not a registered ID
_IMPLEMENTATION_VERSION = 1

_ALL_HARTS = (1 << 64) - 1
_SUSPEND_RETENTIVE, _SUSPEND_NON_RETENTIVE = 0, 0x8000_0000
_SHUTDOWN, _COLD_REBOOT, _WARM_REBOOT = 0, 1, 2
_SYSTEM_FAILURE = 1
#: The most bytes that one DBCN call moves: the guest chooses the length, and calls again for the rest.
_CONSOLE_CHUNK = 4096

_Answer = tuple[int, int]


class SbiHart(NamedTuple):
    """What the firmware does to its hart.

    ``set_timer(ticks)`` programs the S-mode timer, ``software`` is the S-mode software interrupt, ``fence_i`` and
    ``sfence_vma`` make changed code and page tables visible.
    """

    set_timer: SetTimer
    software: IrqLine
    fence_i: Callable[[], None]
    sfence_vma: Callable[[], None]


class Sbi:
    """The calls. ``write(bytes)`` and ``read(size) -> bytes`` (up to ``size``, what there is) are the debug console."""

    def __init__(
        self,
        hart: SbiHart,
        memory: GuestMemory,
        power: PowerSwitch,
        write: Callable[[bytes], None],
        read: Callable[[int], bytes],
    ) -> None:
        self._hart, self._memory, self._power, self._write, self._read = hart, memory, power, write, read
        self._extensions: dict[int, Callable[[int, Sequence[int]], _Answer]] = {
            _BASE: self._base,
            _TIME: self._time,
            _IPI: self._ipi,
            _RFENCE: self._rfence,
            _HSM: self._hsm,
            _SRST: self._srst,
            _DBCN: self._dbcn,
        }
        self._legacy: dict[int, Callable[[int], int]] = {
            _LEGACY_SET_TIMER: self._legacy_set_timer,
            _LEGACY_PUTCHAR: self._legacy_putchar,
            _LEGACY_GETCHAR: self._legacy_getchar,
            _LEGACY_SHUTDOWN: self._legacy_shutdown,
        }

    def call(self, extension: int, function: int, arguments: Sequence[int]) -> tuple[int, int | None]:
        """Answer one ecall: (error, value) for a0 and a1; value is None if a1 is unchanged (the legacy calls)."""
        handler = self._extensions.get(extension)
        if handler is not None:
            return handler(function, arguments)
        legacy = self._legacy.get(extension)
        if legacy is not None:
            return legacy(arguments[0]), None
        return _NOT_SUPPORTED, 0

    # ---------------------------------------------------------------- extensions, SBI 2.0 chapters 4 to 12

    def _base(self, function: int, arguments: Sequence[int]) -> _Answer:
        if function == 3:  # probe_extension
            extension = arguments[0]
            return _SUCCESS, int(extension in self._extensions or extension in self._legacy)
        # spec version, implementation id and version, then mvendorid, marchid, mimpid
        answers = (_SPEC_VERSION, _IMPLEMENTATION_ID, _IMPLEMENTATION_VERSION, 0, 0, 0, 0)
        return (_SUCCESS, answers[function]) if function < len(answers) else (_NOT_SUPPORTED, 0)

    def _time(self, function: int, arguments: Sequence[int]) -> _Answer:
        if function:
            return _NOT_SUPPORTED, 0
        self._hart.set_timer(arguments[0])
        return _SUCCESS, 0

    def _ipi(self, function: int, arguments: Sequence[int]) -> _Answer:
        if function:
            return _NOT_SUPPORTED, 0
        return self._for_harts(arguments[0], arguments[1], lambda: self._hart.software(True))

    def _rfence(self, function: int, arguments: Sequence[int]) -> _Answer:
        # remote_fence_i, remote_sfence_vma, remote_sfence_vma_asid; the others are for hypervisors
        actions = (self._hart.fence_i, self._hart.sfence_vma, self._hart.sfence_vma)
        if function >= len(actions):
            return _NOT_SUPPORTED, 0
        return self._for_harts(arguments[0], arguments[1], actions[function])

    @staticmethod
    def _for_harts(mask: int, base: int, action: Callable[[], None]) -> _Answer:
        if base == _ALL_HARTS:
            mask = 1
        elif base or mask & ~1:
            return _INVALID_PARAM, 0
        if mask:
            action()
        return _SUCCESS, 0

    def _hsm(self, function: int, arguments: Sequence[int]) -> _Answer:
        hart = arguments[0]
        if function == 0:  # hart_start
            return (_ALREADY_AVAILABLE if hart == 0 else _INVALID_PARAM), 0
        if function == 1:  # hart_stop: it is the only hart, and nobody could start it again
            return _FAILED, 0
        if function == 2:  # hart_get_status: 0 is STARTED
            return (_SUCCESS if hart == 0 else _INVALID_PARAM), 0
        if function == 3:  # hart_suspend, which may return for any reason
            kinds = {_SUSPEND_RETENTIVE: _SUCCESS, _SUSPEND_NON_RETENTIVE: _NOT_SUPPORTED}
            return kinds.get(hart & 0xFFFF_FFFF, _INVALID_PARAM), 0
        return _NOT_SUPPORTED, 0

    def _srst(self, function: int, arguments: Sequence[int]) -> _Answer:
        if function:
            return _NOT_SUPPORTED, 0
        kind, reason = arguments[0] & 0xFFFF_FFFF, arguments[1] & 0xFFFF_FFFF
        if kind not in (_SHUTDOWN, _COLD_REBOOT, _WARM_REBOOT):
            return _INVALID_PARAM, 0
        if kind != _SHUTDOWN:
            self._power(PowerRequest(PowerAction.RESET))
        elif reason == _SYSTEM_FAILURE:
            self._power(PowerRequest(PowerAction.FAIL, 1))
        else:
            self._power(PowerRequest(PowerAction.OFF))
        return _SUCCESS, 0

    def _dbcn(self, function: int, arguments: Sequence[int]) -> _Answer:
        size, address = min(arguments[0], _CONSOLE_CHUNK), arguments[1] | arguments[2] << 64
        try:
            if function == 0:  # console_write
                self._write(self._memory.read(address, size))
                return _SUCCESS, size
            if function == 1:  # console_read
                if not self._memory.contains(address, size):
                    return _INVALID_PARAM, 0
                data = self._read(size)
                self._memory.write(address, data)
                return _SUCCESS, len(data)
        except OutsideRamError:
            return _INVALID_PARAM, 0
        if function == 2:  # console_write_byte
            self._write(bytes([arguments[0] & 0xFF]))
            return _SUCCESS, 0
        return _NOT_SUPPORTED, 0

    # ---------------------------------------------------------------- legacy calls, chapter 5

    def _legacy_set_timer(self, ticks: int) -> int:
        self._hart.set_timer(ticks)
        return _SUCCESS

    def _legacy_putchar(self, character: int) -> int:
        self._write(bytes([character & 0xFF]))
        return _SUCCESS

    def _legacy_getchar(self, _unused: int) -> int:
        data = self._read(1)
        return data[0] if data else -1

    def _legacy_shutdown(self, _unused: int) -> int:
        self._power(PowerRequest(PowerAction.OFF))
        return _SUCCESS
