"""The CPU in a snapshot: the words of Unicorn's CPURISCVState, and what they may be.

Unicorn believes its own data. For a mode of satp that it doesn't know it aborts the process, and for a privilege mode
that isn't one it looks for the TLB behind the last one. So a word of a snapshot may only differ from a new CPU's where
a guest could have changed it, and be there what a guest could have made of it.
"""

from array import array
from collections.abc import Sequence
from functools import cache

from devices.state import check
from emu.cpu.layout import Reg

__all__ = ["check_words", "put_words", "take_words"]

_ANY = (1 << 64) - 1
#: Exception codes of interrupts that exist: 1 to 11 (Privileged Architecture, mip).
_INTERRUPTS = (1 << 12) - 1
#: What a guest can change: first word, how many, which bits.
_CHANGEABLE = (
    (Reg.X0 + 1, 31, _ANY),
    (Reg.F0, 32, _ANY),
    (Reg.PC, 1, _ANY),
    (Reg.LOAD_RES, 2, _ANY),  # and load_val
    (Reg.FRM, 1, 7),
    (Reg.BADADDR, 1, _ANY),
    (Reg.PRIV, 1, 3),
    (Reg.MSTATUS, 1, _ANY),  # Unicorn takes MPP = 2 for U mode
    (Reg.MIP, 1, _INTERRUPTS),
    (Reg.MIE, 2, _INTERRUPTS),  # and mideleg
    (Reg.SATP, 10, _ANY),  # to mcause
    (Reg.SCOUNTEREN, 4, _ANY),  # to mscratch
    *((Reg.PMP + 2 * rule, 1, _ANY) for rule in range(16)),
    *((Reg.PMP + 2 * rule + 1, 1, 0xFF) for rule in range(16)),
    # These do not follow from the above: Unicorn forgets to look at a range again when the rule before it changes.
    (Reg.PMP_RANGES, 32, _ANY),
    (Reg.PMP_USED, 1, 31),
    (Reg.FP_STATUS, 1, 7 << 16 | 0xFF << 24),
)
_BARE, _SV39, _SV48, _SV57 = 0, 8, 9, 10
_USER, _SUPERVISOR, _MACHINE = 0, 1, 3
#: float_round_ties_away, the last of those that RISC-V has.
_LAST_ROUNDING_MODE = 4


def take_words(state: memoryview) -> list[int]:
    """Return the words of the CPU state; those that are pointers as 0."""
    words: list[int] = state.tolist()
    for pointer in Reg.POINTERS:
        words[pointer] = 0
    return words


def put_words(state: memoryview, words: Sequence[int]) -> None:
    """Have the CPU go on with ``words``, all but the pointers."""
    whole = array("Q", words)
    for pointer in Reg.POINTERS:
        whole[pointer] = state[pointer]
    state[:] = memoryview(whole)


def check_words(words: Sequence[int], new: Sequence[int]) -> None:
    """Raise UsageError unless ``words`` are what a guest can have made of those of a ``new`` CPU."""
    check(len(words) == len(new), "the number of the CPU's words")
    for word, (value, at_first, changeable) in enumerate(zip(words, new, _changeable(len(new)), strict=True)):
        check(not (value ^ at_first) & ~changeable, f"word {word} of the CPU")
    check(words[Reg.PRIV] in {_USER, _SUPERVISOR, _MACHINE}, "the CPU's privilege mode")
    check(words[Reg.SATP] >> 60 in {_BARE, _SV39, _SV48, _SV57}, "the mode of the CPU's satp")
    check(words[Reg.FP_STATUS] >> 16 & 0xFF <= _LAST_ROUNDING_MODE, "the CPU's rounding mode")


@cache
def _changeable(count: int) -> list[int]:
    """Which bits of each word a guest can change."""
    masks = [0] * count
    for first, words, bits in _CHANGEABLE:
        masks[first : first + words] = [bits] * words
    return masks
