"""What a machine does, as records: as lines, in a file for a trace viewer, or for Python.

The machine's parts know nothing of it: emu/joints.py says how the trace gets between them.
"""

from emu.trace.chrome import TraceFile
from emu.trace.record import CATEGORIES, DEFAULT, Record, parse_categories
from emu.trace.text import line
from emu.trace.trace import Trace

__all__ = ["CATEGORIES", "DEFAULT", "Record", "Trace", "TraceFile", "line", "parse_categories"]
