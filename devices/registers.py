"""Arithmetic that device registers share."""

__all__ = ["U32", "with_half"]

U32 = 0xFFFF_FFFF


def with_half(value: int, *, high: bool, half: int) -> int:
    """``value`` (64 bits) with one of its 32-bit halves replaced."""
    return (half << 32 | value & U32) if high else (value & ~U32 | half)
