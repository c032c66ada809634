"""SiFive PLIC 1.0.0, the platform-level interrupt controller (RISC-V PLIC specification 1.0.0).

All sources are level-sensitive. The state of a gateway is derived, never stored: a source is pending while its level
is high and nobody has claimed it. Therefore

- a source that is still high when its handler completes it is pending again (specification, section 6);
- a source that falls before it is claimed is no longer pending. QEMU's ``sifive_plic`` has long behaved this way; under
  the specification the request would stand and the handler find nothing to do, which Linux counts as a stray interrupt.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, TypedDict

from devices.contracts import IrqLine, Property, Ref, cpu_intc
from devices.state import U8, Ns, check

__all__ = ["Plic", "PlicState"]

PRIORITY_BASE = 0x0000
PENDING_BASE = 0x1000
ENABLE_BASE = 0x2000
ENABLE_STRIDE = 0x80
CONTEXT_BASE = 0x20_0000
CONTEXT_STRIDE = 0x1000
#: Registers of a context, relative to its base.
THRESHOLD = 0
CLAIM_COMPLETE = 4

MAX_PRIORITY = 7
MAX_SOURCES = 1023
U32 = 0xFFFF_FFFF

#: ``mcause`` of an external interrupt in M and in S mode; the device tree numbers a hart's inputs the same way.
IRQ_M_EXT = 11
IRQ_S_EXT = 9


#: A set of sources: bit n for source n. Bit 0 is never set, because source 0 does not exist.
Sources = Annotated[int, MAX_SOURCES + 1]


class PlicState(TypedDict):
    """The inputs' levels, what is being serviced, and the registers: per source (from 0) or per context."""

    levels: Sources
    claimed: Sources
    priority: list[U8]
    enabled: list[Sources]
    threshold: list[U8]
    claims: list[Ns]


class Plic:
    """A PLIC with interrupt sources 1 to ``sources``.

    ``contexts`` are its outputs, two per hart: M mode, then S mode. They are called only when their level
    changes.
    """

    size = 0x60_0000
    node_name = "interrupt-controller"
    compatible: tuple[str, ...] = ("sifive,plic-1.0.0", "riscv,plic0")

    def __init__(self, sources: int, contexts: Sequence[IrqLine]) -> None:
        if not 1 <= sources <= MAX_SOURCES:
            raise ValueError(f"a PLIC has 1 to {MAX_SOURCES} interrupt sources, not {sources}")
        self._sources = sources
        self._contexts = tuple(contexts)
        self._implemented: Sources = (2 << sources) - 2
        self._levels: Sources = 0
        self._claimed: Sources = 0
        self._priority = [0] * (sources + 1)
        self._with_priority = [self._implemented] + [0] * MAX_PRIORITY
        self._urgent_first: tuple[Sources, ...] = ()  # those of equal priority, and never of priority 0
        self._enabled = [0] * len(contexts)
        self._threshold = [0] * len(contexts)
        # The enabled sources above the threshold: those that may raise a context. Cached, so a line costs two `&`.
        self._eligible = [0] * len(contexts)
        self._output = [False] * len(contexts)
        # Every interrupt comes here three times.
        self._claim_registers = {
            CONTEXT_BASE + CONTEXT_STRIDE * context + CLAIM_COMPLETE: context for context in range(len(contexts))
        }
        #: How often each source has been claimed, by number.
        self.claims = [0] * (sources + 1)

    @property
    def properties(self) -> Mapping[str, Property]:
        """The number of sources, and the hart inputs that the contexts go to."""
        cells: list[int | Ref] = []
        for context in range(len(self._contexts)):
            cells += [cpu_intc(context // 2), IRQ_S_EXT if context % 2 else IRQ_M_EXT]
        return {
            "interrupt-controller": None,
            "#interrupt-cells": 1,
            "#address-cells": 0,
            "interrupts-extended": tuple(cells),
            "riscv,ndev": self._sources,
        }

    def line(self, source: int) -> IrqLine:
        """Return the input of ``source``; raises ValueError if there is none."""
        if not 1 <= source <= self._sources:
            raise ValueError(f"interrupt source {source} is not one of 1 to {self._sources}")
        bit = 1 << source

        def set_level(level: bool) -> None:
            if bool(self._levels & bit) is not level:
                self._levels ^= bit
                if not self._claimed & bit:  # or it is seen when it is completed
                    self._update_outputs()

        return set_level

    def read(self, offset: int, size: int) -> int:
        """Value of a guest load. Loading the claim register claims a source."""
        if size != 4:
            return 0
        claiming = self._claim_registers.get(offset)
        if claiming is not None:
            return self._claim(claiming)
        if offset >= CONTEXT_BASE:
            context, register = divmod(offset - CONTEXT_BASE, CONTEXT_STRIDE)
            return self._threshold[context] if context < len(self._contexts) and register == THRESHOLD else 0
        if offset >= ENABLE_BASE:
            context, byte = divmod(offset - ENABLE_BASE, ENABLE_STRIDE)
            return self._enabled[context] >> byte * 8 & U32 if context < len(self._contexts) else 0
        if offset >= PENDING_BASE:
            return self._pending() >> (offset - PENDING_BASE) * 8 & U32
        source = (offset - PRIORITY_BASE) >> 2
        return self._priority[source] if source <= self._sources else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Effect of a guest store. Storing to the claim register completes a source."""
        if size != 4:
            return
        completing = self._claim_registers.get(offset)
        if completing is not None:
            self._complete(completing, value)
        elif offset >= CONTEXT_BASE:
            context, register = divmod(offset - CONTEXT_BASE, CONTEXT_STRIDE)
            if context < len(self._contexts) and register == THRESHOLD:
                self._threshold[context] = value & MAX_PRIORITY
                self._update_eligible()
        elif offset >= ENABLE_BASE:
            context, byte = divmod(offset - ENABLE_BASE, ENABLE_STRIDE)
            if context < len(self._contexts):
                others = self._enabled[context] & ~(U32 << byte * 8)
                self._enabled[context] = (others | value << byte * 8) & self._implemented
                self._update_eligible()
        elif offset < PENDING_BASE:  # the pending bits are read-only
            source = (offset - PRIORITY_BASE) >> 2
            if 1 <= source <= self._sources:
                self._set_priority(source, value & MAX_PRIORITY)

    def state(self) -> PlicState:
        """Return its state; what follows from it, like the levels of its outputs, is not in it."""
        return {
            "levels": self._levels,
            "claimed": self._claimed,
            "priority": list(self._priority),
            "enabled": list(self._enabled),
            "threshold": list(self._threshold),
            "claims": list(self.claims),
        }

    def restore(self, state: PlicState) -> None:
        """Become what ``state`` says; raises UsageError for sources, contexts or priorities that it does not have."""
        sets = (state["levels"], state["claimed"], *state["enabled"])
        check(not any(sources & ~self._implemented for sources in sets), "the interrupt sources of the PLIC")
        check(len(state["priority"]) == len(state["claims"]) == self._sources + 1, "the priorities of the PLIC")
        check(len(state["enabled"]) == len(state["threshold"]) == len(self._contexts), "the contexts of the PLIC")
        check(max(*state["priority"], *state["threshold"]) <= MAX_PRIORITY, "the priorities of the PLIC")
        self._levels, self._claimed, self.claims = state["levels"], state["claimed"], list(state["claims"])
        self._priority, self._threshold = list(state["priority"]), list(state["threshold"])
        self._enabled = list(state["enabled"])
        self._with_priority = [0] * (MAX_PRIORITY + 1)
        for source in range(1, self._sources + 1):
            self._with_priority[self._priority[source]] |= 1 << source
        self._find_eligible()
        self._output = [self._pending() & eligible != 0 for eligible in self._eligible]

    def _pending(self) -> int:
        return self._levels & ~self._claimed

    def _claim(self, context: int) -> int:
        """Take the most urgent source; the lowest number wins a tie. The threshold does not matter (section 9)."""
        candidates = self._levels & ~self._claimed & self._enabled[context]
        if candidates:
            for equals in self._urgent_first:
                sources = candidates & equals
                if sources:
                    lowest = sources & -sources
                    self._claimed |= lowest
                    self._update_outputs()
                    source = lowest.bit_length() - 1
                    self.claims[source] += 1
                    return source
        return 0

    def _complete(self, context: int, source: int) -> None:
        """Finish servicing ``source``; ignored unless it is enabled for ``context`` (section 10)."""
        # Check the bound first: the guest chooses `source`, and 1 << 2**32 would take half a gigabyte.
        if source <= self._sources and self._enabled[context] & 1 << source:
            self._claimed &= ~(1 << source)
            if self._levels & 1 << source:
                self._update_outputs()

    def _set_priority(self, source: int, priority: int) -> None:
        self._with_priority[self._priority[source]] &= ~(1 << source)
        self._with_priority[priority] |= 1 << source
        self._priority[source] = priority
        self._update_eligible()

    def _update_eligible(self) -> None:
        self._find_eligible()
        self._update_outputs()

    def _find_eligible(self) -> None:
        self._urgent_first = tuple(filter(None, self._with_priority[:0:-1]))
        for context, threshold in enumerate(self._threshold):
            urgent = 0
            for sources in self._with_priority[threshold + 1 :]:
                urgent |= sources
            self._eligible[context] = self._enabled[context] & urgent

    def _update_outputs(self) -> None:
        pending = self._levels & ~self._claimed
        for context, eligible in enumerate(self._eligible):
            level = pending & eligible != 0
            if level is not self._output[context]:
                self._output[context] = level
                self._contexts[context](level)
