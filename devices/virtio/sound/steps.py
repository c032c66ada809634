"""Work in steps, so that the guest has its turn: how much is done at once, and what it is counted in.

Whoever does such work adds up what its steps cost, and goes on in another event when that is ``AT_ONCE``.
"""

from collections.abc import Generator
from typing import TypeVar

__all__ = ["AT_ONCE", "COMPLETE", "RETURN", "Steps"]

T = TypeVar("T")

#: Work that yields what each step has cost, and returns a T in the end.
Steps = Generator[int, None, T]

#: Bytes of sound that are moved at once: 0.1 to 0.3 ms, the system call that writes them to a file included.
AT_ONCE = 128 << 10
#: What else takes time, in bytes that take as long: a message that completes (20 us), one that is given back (4 us).
COMPLETE, RETURN = 16 << 10, 4 << 10
