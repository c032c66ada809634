"""Work done in steps, so that the guest gets its turn in between.

Whoever does such work adds up what its steps cost, and once that reaches ``AT_ONCE`` continues in another event.
"""

from collections.abc import Generator
from typing import TypeVar

__all__ = ["AT_ONCE", "COMPLETE", "RETURN", "Steps"]

T = TypeVar("T")

#: Work that yields what each step has cost, and returns a T in the end.
Steps = Generator[int, None, T]

#: Bytes of sound that are moved at once: 0.1 to 0.3 ms, the system call that writes them to a file included.
AT_ONCE = 128 << 10
#: Other work, in bytes that take as long to move: a message that completes (20 us), one that is given back (4 us).
COMPLETE, RETURN = 16 << 10, 4 << 10
