"""Records as lines of text.

[    1.234567] snd     playback 0: period 21333.3 us late_us=0.104 bytes=4096 fill=12288

shows: guest time when it became known, category, track, name, duration, and details.
"""

from emu.trace.record import Record

__all__ = ["line"]


def line(record: Record) -> str:
    """Describe ``record`` in one line, without the newline."""
    time, category, track, name, detail, span, _, _ = record
    took = "" if span is None else f" {(span[1] - span[0]) / 1000:.1f} us"
    rest = "".join(f" {key}={_show(value)}" for key, value in detail.items())
    return f"[{time / 1e9:12.6f}] {category:6}  {track}: {name}{took}{rest}"


def _show(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return f'"{value}"' if isinstance(value, str) and " " in value else str(value)
