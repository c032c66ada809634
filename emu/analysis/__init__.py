"""Sound analysis: whether a recording is what was played, bit for bit, and if not, what is wrong with it.

    sound       WAV files as numpy arrays
    comparison  a recording against its original, frame by frame: dropped, repeated, reordered, altered
    tone        frequency, level, THD+N and drift of a test tone
    defects     clicks, skips, dropouts and replayed blocks, found without an original
    periods     the log of a sound device's periods: lateness, and the drift of guest against host time
    report      all of that for one recording, as text
    picture     the same as an image (needs matplotlib)

Needs numpy, so only code that measures imports it, never the machine.
"""

from emu.analysis.comparison import Comparison, Difference, compare
from emu.analysis.defects import Defects, Dropout, Repeat, Skip, find_defects, find_repeats
from emu.analysis.periods import Period, PeriodStatistics, describe_periods, read_log
from emu.analysis.report import Channel, Report, analyse
from emu.analysis.sound import Sound, read_wav
from emu.analysis.tone import Tone, measure_tone

__all__ = [
    "Channel",
    "Comparison",
    "Defects",
    "Difference",
    "Dropout",
    "Period",
    "PeriodStatistics",
    "Repeat",
    "Report",
    "Skip",
    "Sound",
    "Tone",
    "analyse",
    "compare",
    "describe_periods",
    "find_defects",
    "find_repeats",
    "measure_tone",
    "read_log",
    "read_wav",
]
