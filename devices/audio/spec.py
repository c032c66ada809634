"""What ``--audio`` says."""

from devices.audio.base import AudioBackend
from devices.audio.null import NullSink
from devices.audio.wav import WavSink
from emu.errors import UsageError

__all__ = ["parse"]

_HELP = "use null or wav:OUT.wav"


def parse(text: str) -> AudioBackend:
    """Make the backend that ``null`` or ``wav:OUT.wav`` names; raises UsageError."""
    kind, colon, rest = text.partition(":")
    if kind == "null" and not colon:
        return NullSink()
    if kind == "wav":
        return _parse_wav(rest)
    if kind == "host":
        raise UsageError(f"--audio {text}: sound on the host is not available yet; {_HELP}")
    raise UsageError(f"--audio {text}: no such backend; {_HELP}")


def _parse_wav(rest: str) -> AudioBackend:
    path, *options = rest.split(",")
    if not path:
        raise UsageError("--audio wav: the name of the file is missing; use wav:OUT.wav")
    for option in options:
        if option.startswith("in="):
            raise UsageError(f"--audio wav: {option}: recording in the guest is not available yet")
        raise UsageError(f"--audio wav: unknown option {option!r} (a comma cannot be part of the file's name)")
    return WavSink(path)
