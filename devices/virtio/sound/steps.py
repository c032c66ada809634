"""Work done in steps, so that the guest gets its turn in between.

Whoever does such work adds up what its steps cost, and once that reaches ``AT_ONCE`` continues in another event.
"""

from collections.abc import Iterator

__all__ = ["AT_ONCE", "RETURN", "Steps"]

#: Work that yields the cost of each step. It keeps nothing to itself from one step to the next: whatever is left to do
#: can be seen where it is done, and taken up there by the next one.
Steps = Iterator[int]

#: Bytes of sound moved at once: 0.1 to 0.3 ms, including the system call that writes them to a file.
AT_ONCE = 128 << 10
#: Returning a message, as the number of bytes that take as long to move (4 us).
RETURN = 4 << 10
