"""Sstc: a supervisor that sets its own timer (Privileged Architecture 3.1.18, and the chapter on Sstc).

Unicorn has neither ``menvcfg`` nor ``stimecmp``, so each access is an illegal instruction, which the hart first passes
to ``Sstc.execute``.
"""

from typing import TypedDict

from devices.state import U64, check
from devices.stimer import NEVER, SetTimer
from emu.cpu.engine import Reg

__all__ = ["MENVCFG", "STIMECMP", "Sstc", "SstcState"]

STIMECMP, MENVCFG = 0x14D, 0x30A
_FIOM, _STCE = 1 << 0, 1 << 63  # menvcfg; FIOM can be set but changes nothing: every fence orders everything
_TM = 1 << 1  # mcounteren

_SYSTEM = 0x73
_WRITE, _SET, _CLEAR = 1, 2, 3  # funct3 of csrrw, csrrs and csrrc; with _IMMEDIATE of csrrwi, csrrsi and csrrci
_IMMEDIATE = 4
_SUPERVISOR, _MACHINE = 1, 3


class SstcState(TypedDict):
    """The two CSRs; the timer behind them has a state of its own."""

    menvcfg: U64
    stimecmp: U64


class Sstc:
    """The two CSRs of the hart with this CPU ``state``; ``set_timer(ticks)`` programs the timer behind STIP."""

    def __init__(self, state: memoryview, set_timer: SetTimer) -> None:
        self._state, self._set_timer = state, set_timer
        self._menvcfg = 0
        self._stimecmp = NEVER

    def execute(self, instruction: int) -> bool:
        """Execute ``instruction``, leaving the pc alone; False if it is not a legal access to the two CSRs."""
        csr, operation = instruction >> 20, instruction >> 12 & 3
        if instruction & 0x7F != _SYSTEM or not operation or not self._may_access(csr):
            return False
        state = self._state
        source, target = instruction >> 15 & 31, instruction >> 7 & 31
        operand = source if instruction >> 12 & _IMMEDIATE else state[Reg.X0 + source]
        before = self._menvcfg if csr == MENVCFG else self._stimecmp
        if operation == _WRITE:
            self._write(csr, operand)
        elif source:  # with x0, or 0, csrrs and csrrc do not write at all
            self._write(csr, before | operand if operation == _SET else before & ~operand)
        if target:
            state[Reg.X0 + target] = before
        return True

    def state(self) -> SstcState:
        """Return its state."""
        return {"menvcfg": self._menvcfg, "stimecmp": self._stimecmp}

    def restore(self, state: SstcState) -> None:
        """Become what ``state`` says, without programming the timer; raises UsageError for bits that menvcfg lacks."""
        check(not state["menvcfg"] & ~(_FIOM | _STCE), "the menvcfg of the hart")
        self._menvcfg, self._stimecmp = state["menvcfg"], state["stimecmp"]

    def _may_access(self, csr: int) -> bool:
        mode = self._state[Reg.PRIV]
        if csr == MENVCFG:
            return mode == _MACHINE
        if csr != STIMECMP:
            return False
        allowed = self._menvcfg & _STCE and self._state[Reg.MCOUNTEREN] & _TM
        return mode == _MACHINE or (mode == _SUPERVISOR and bool(allowed))

    def _write(self, csr: int, value: int) -> None:
        before = self._menvcfg
        if csr == STIMECMP:
            self._stimecmp = value
        else:
            self._menvcfg = value & (_FIOM | _STCE)
        if self._menvcfg & _STCE:
            self._set_timer(self._stimecmp)
        elif before & _STCE:
            self._set_timer(NEVER)
