r"""A run as a file: what came from outside, and where in the run, is recorded, and replayed to the bit.

With the warp clock a run depends on nothing but its files, its seed and its inputs (see emu/timing/warp.py). An input
is applied between two turns of the machine's loop; a turn is a stretch of running, or a jump of time, and the loop's
mere sleeping is none. So the number of turns says exactly where an input belongs, and a replay that applies each
after the same number of them is the same run. Guest time is recorded too, as a check.

    {"pyemu recording": 2, "version": ..., "seed": ..., ...}     power-on: what the machine was made of
    [turn, guest ns, "type", ["ls\r"]]                          an input, or a piece of recorded sound
    [turn, guest ns, "end", [bytes printed, their SHA-256, "off"]]

Each is a line of JSON, written at once, so that whatever ends the process leaves a file that can be replayed. A reset
makes another machine, whose lines follow those of the first.
"""

from emu.recording.file import Reader, Writer
from emu.recording.recorder import Recorder
from emu.recording.replayer import Replayer, ReplayError

__all__ = ["Reader", "Recorder", "ReplayError", "Replayer", "Writer"]
