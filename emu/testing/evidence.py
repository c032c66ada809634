"""What a failed test leaves: the recording of its run; of its sound, a picture beside the WAV file; and where it is."""

import warnings
from pathlib import Path

from devices.audio import AudioBackend, PeriodLog, WavSink
from devices.audio.patchbay import Patchbay
from devices.errors import PyemuError
from emu.machine import Machine
from emu.recording import Recorder

__all__ = ["draw", "kept", "repeat"]

#: Most frames of a sound to draw, which takes a second or two.
_SHORT = 1 << 22


def kept(audio: AudioBackend) -> list[str]:
    """Say what ``audio`` has kept. If it is a WavSink, draw its latest sound, with its periods if they are logged."""
    lines = audio.summary()
    log: PeriodLog | None = None
    while isinstance(audio, Patchbay | PeriodLog):
        log = audio if isinstance(audio, PeriodLog) else log
        audio = audio.backend
    if not isinstance(audio, WavSink):
        return lines
    sounds = [file for file in audio.files if file.frames]
    if log is not None:
        log.flush()
    return lines + [draw(sound.path, None if log is None else log.path) for sound in sounds[-1:]]


def repeat(machine: Machine) -> list[str]:
    """Say where the run of ``machine`` is recorded, and how to repeat it."""
    journal = machine.journal
    if not isinstance(journal, Recorder):
        return []
    return [f"{journal.writer.path}: the run; to repeat it, to the bit:", journal.repeat]


def draw(recording: Path, log: Path | None = None) -> str:
    """Draw a WAV file into a PNG beside it; return a line that says where, or why there is none. Never raises."""
    picture = recording.with_suffix(".png")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings that the tests turn into errors do not concern matplotlib
            return _draw(recording, picture, log)
    except PyemuError as error:
        return f"{picture}: {error}"
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is the news
        return f"{picture} could not be drawn: {type(error).__name__}: {error}"


def _draw(recording: Path, picture: Path, log: Path | None) -> str:
    from emu import analysis  # noqa: PLC0415 - numpy, and only where a test has failed
    from emu.analysis.picture import check_installed, plot  # noqa: PLC0415

    check_installed()
    sound = analysis.read_wav(recording)
    if len(sound.frames) > _SHORT:
        return f"{picture}: long; pyemu audio plot {recording} -o {picture}"
    plot(analysis.analyse(sound), picture, analysis.read_log(log) if log is not None else [])
    return f"{picture}: the same as a picture"
