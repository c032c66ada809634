"""The part of the hart's privileged architecture that Unicorn leaves to its caller: entering exceptions.

Unicorn itself handles interrupts, sret, mret, CSRs and page tables; here are the synchronous exceptions (Privileged
Architecture 3.1.6 to 3.1.15, 4.1), the calls to the built-in firmware, and the instructions that Unicorn lacks. What
else it gets wrong is in UNICORN.md.
"""

from collections.abc import Callable, Sequence
from typing import TypedDict

from devices.errors import MachineError
from devices.state import Ns, check
from devices.stimer import SetTimer
from emu.cpu.engine import CpuState, Engine, Reg
from emu.cpu.sstc import Sstc, SstcState

__all__ = ["CAUSES", "ECALL", "MEIP", "MSIP", "MTIP", "SEIP", "SSIP", "STIP", "Hart", "HartState", "SupervisorCalls"]

SSIP, MSIP, STIP, MTIP, SEIP, MEIP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 9, 1 << 11

_USER, _SUPERVISOR, _MACHINE = 0, 1, 3
_SIE, _MIE, _SPIE, _MPIE, _SPP, _MPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8, 3 << 11

#: UXL and SXL: 64 bits, the only width there is. Unicorn starts them as 0, and never changes them.
_XLEN_64 = 2 << 32 | 2 << 34

_ILLEGAL, _BREAKPOINT, ECALL = 2, 3, 8
CAUSES = {
    0: "instruction address misaligned", 1: "instruction access fault", 2: "illegal instruction", 3: "breakpoint",
    4: "load address misaligned", 5: "load access fault", 6: "store address misaligned", 7: "store access fault",
    8: "ecall from U mode", 9: "ecall from S mode", 11: "ecall from M mode", 12: "instruction page fault",
    13: "load page fault", 15: "store page fault",
}  # fmt: skip
INTERRUPTS = {
    1: "supervisor software", 3: "machine software", 5: "supervisor timer", 7: "machine timer",
    9: "supervisor external", 11: "machine external",
}  # fmt: skip
_FENCE_I, _FENCE_I_MASK = 0x100F, 0x707F  # the other fields must be ignored
_INTERRUPT = 1 << 63  # in scause and mcause
_U64 = _NO_RESERVATION = (1 << 64) - 1

#: The exceptions that a supervisor itself handles under the built-in firmware: all but its own calls.
_DELEGATED_EXCEPTIONS = 0xF1FF & ~(1 << 9)
_DELEGATED_INTERRUPTS = SSIP | STIP | SEIP


#: Supervisor calls: (extension, function, arguments) -> (error for a0, value for a1 or None to leave it).
SupervisorCalls = Callable[[int, int, Sequence[int]], tuple[int, int | None]]


#: What enters a trap: (cause, pc).
ExceptionHandler = Callable[[int, int], None]


class HartState(TypedDict):
    """The CPU, what was counted, and Sstc where the hart has it. Whether it waits is a matter of the loop's."""

    cpu: CpuState
    traps: Ns
    supervisor_calls: Ns
    sstc: SstcState | None


class Hart:
    """Hart 0."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._state = engine, engine.state
        self._calls: SupervisorCalls | None = None
        self._sstc: Sstc | None = None
        self._traps = 0
        #: How many of the traps were calls from S mode to the firmware, built in or not.
        self.supervisor_calls = 0
        engine.exception = self._exception

    @property
    def traps(self) -> int:
        """How many exceptions there have been so far."""
        return self._traps + (self._engine.native.traps if self._engine.native is not None else 0)

    def watch(self, between: Callable[[ExceptionHandler], ExceptionHandler]) -> None:
        """Let ``between`` wrap the exception handler, so that it sees each exception first."""
        handler = between(self._exception)
        if handler != self._exception:
            self._engine.exception = handler
            self._engine.leave_traps_to_python()

    def start_supervisor(self, pc: int, a1: int, calls: SupervisorCalls) -> None:
        """Begin in S mode at ``pc`` as firmware hands over: a0 the hart, a1 the device tree; ``calls`` takes ecalls."""
        self._calls = calls
        state = self._state
        state[Reg.MEDELEG], state[Reg.MIDELEG] = _DELEGATED_EXCEPTIONS, _DELEGATED_INTERRUPTS
        state[Reg.MCOUNTEREN] = 0b111
        state[Reg.A0], state[Reg.A1] = 0, a1
        self._start(_SUPERVISOR, pc)

    def start_machine(self, pc: int, a1: int, a2: int, set_timer: SetTimer | None = None) -> None:
        """Begin in M mode at ``pc``, as a reset vector does: a0 the hart, a1 the device tree, a2 fw_dynamic's info.

        With ``set_timer``, which programs the supervisor timer, the hart has Sstc.
        """
        state = self._state
        state[Reg.A0], state[Reg.A1], state[Reg.A2] = 0, a1, a2
        self._sstc = None if set_timer is None else Sstc(state, set_timer)
        self._start(_MACHINE, pc)

    def _start(self, mode: int, pc: int) -> None:
        state = self._state
        state[Reg.MSTATUS] |= _XLEN_64
        state[Reg.PRIV], state[Reg.PC] = mode, pc

    def state(self) -> HartState:
        """Return its state, between two runs."""
        return {
            "cpu": self._engine.save(),
            "traps": self.traps,
            "supervisor_calls": self.supervisor_calls,
            "sstc": None if self._sstc is None else self._sstc.state(),
        }

    def restore(self, state: HartState) -> None:
        """Go on from ``state``; the engine has to be told which RAM has changed, see ``Engine.changed``.

        Raises UsageError for a state that no guest can bring about, or of a hart that was started another way.
        """
        sstc = state["sstc"]
        check((sstc is None) == (self._sstc is None), "the hart's Sstc")
        self._engine.restore(state["cpu"])
        if self._sstc is not None and sstc is not None:
            self._sstc.restore(sstc)
        self._traps += state["traps"] - self.traps
        self.supervisor_calls = state["supervisor_calls"]

    def wakes(self) -> bool:
        """Whether an interrupt is pending that ends WFI: enabled in mie, globally enabled or not."""
        return bool(self._state[Reg.MIP] & self._state[Reg.MIE])

    def _exception(self, cause: int, pc: int) -> None:
        self._traps += 1
        state = self._state
        mode = state[Reg.PRIV]
        if cause == ECALL:
            self.supervisor_calls += mode == _SUPERVISOR
            if mode == _SUPERVISOR and self._calls is not None:
                state[Reg.PC] = pc + 4
                error, answer = self._calls(state[Reg.A7], state[Reg.A6], state[Reg.A0 : Reg.A6])
                state[Reg.A0] = error & _U64
                if answer is not None:
                    state[Reg.A1] = answer & _U64
                return
            cause += mode
            value = 0
        elif cause == _ILLEGAL:
            value = self._engine.instruction(pc)
            if value & _FENCE_I_MASK == _FENCE_I:
                self._traps -= 1  # it is not one
                self._engine.synchronize_code()
                state[Reg.PC] = pc + 4
                return
            if self._sstc is not None and self._sstc.execute(value):
                self._traps -= 1
                state[Reg.PC] = pc + 4
                return
        else:
            value = pc if cause == _BREAKPOINT else state[Reg.BADADDR]
        delegated = mode != _MACHINE and state[Reg.MEDELEG] >> cause & 1
        handler = state[Reg.STVEC if delegated else Reg.MTVEC] & ~3
        if handler == pc:  # its first instruction traps to itself, which a real hart would do for ever
            raise MachineError(f"hart 0 has no handler for its trap: {self._first_trap(cause, pc, value)}")
        status = state[Reg.MSTATUS]
        if delegated:
            status = status & ~(_SPP | _SPIE | _SIE) | mode << 8 | (status & _SIE) << 4
            state[Reg.SEPC], state[Reg.SCAUSE], state[Reg.STVAL] = pc, cause, value
            state[Reg.PRIV] = _SUPERVISOR
        else:
            status = status & ~(_MPP | _MPIE | _MIE) | mode << 11 | (status & _MIE) << 4
            state[Reg.MEPC], state[Reg.MCAUSE], state[Reg.MTVAL] = pc, cause, value
            state[Reg.PRIV] = _MACHINE
        state[Reg.MSTATUS] = status
        state[Reg.LOAD_RES] = _NO_RESERVATION
        state[Reg.PC] = handler

    def _first_trap(self, cause: int, pc: int, value: int) -> str:
        """Describe the trap that has no handler: the one that led to ``pc``, if this trap is from its handler."""
        state = self._state
        what = _describe(cause, pc, value)
        if state[Reg.PRIV] == _MACHINE:
            enabled, first = _MIE, (state[Reg.MCAUSE], state[Reg.MEPC], state[Reg.MTVAL])
        else:
            enabled, first = _SIE, (state[Reg.SCAUSE], state[Reg.SEPC], state[Reg.STVAL])
        if state[Reg.PRIV] == _USER or state[Reg.MSTATUS] & enabled or not any(first):
            return what  # a jump led here, not a trap
        return f"{_describe(*first)}; its handler traps, too: {what}"


def _describe(cause: int, pc: int, value: int) -> str:
    if cause & _INTERRUPT:
        number = cause & ~_INTERRUPT
        return f"pc {pc:#x}, interrupt {number} ({INTERRUPTS.get(number, 'reserved')})"
    return f"pc {pc:#x}, cause {cause} ({CAUSES.get(cause, 'reserved')}), value {value:#x}"
