"""What ``--audio`` says: BACKEND[:ARGUMENT][,OPTION=VALUE]..."""

from collections.abc import Callable

from devices.audio.base import AudioBackend
from devices.audio.loopback import Loopback
from devices.audio.null import NullSink
from devices.audio.periodlog import PeriodLog
from devices.audio.wav import WavSink
from emu.errors import UsageError

__all__ = ["parse"]

_HELP = "use null, wav:OUT.wav[,in=IN.wav] or loopback[:FRAMES], and with any ,streams=OUT+IN or ,log=OUT.jsonl"
#: Linux has room for eight PCM devices on a card.
_MOST_STREAMS = 8
#: Ten seconds of the highest rate.
_MOST_FRAMES = 3_840_000


def parse(text: str) -> AudioBackend:
    """Make the backend that ``text`` names; raises UsageError. Nothing is opened before all of it is understood."""
    first, *rest = text.split(",")
    kind, colon, argument = first.partition(":")
    if kind == "host":
        raise UsageError(f"--audio {text}: sound on the host is not available yet; {_HELP}")
    if kind not in _KINDS or (kind == "null" and colon) or (kind == "loopback" and colon and not argument):
        raise UsageError(f"--audio {text}: no such backend; {_HELP}")
    if kind == "wav" and not argument:
        raise UsageError("--audio wav: the name of the file is missing; use wav:OUT.wav")
    options = _options(kind, rest)
    streams = _parse_streams(options.get("streams", "1+1"))
    backend = _KINDS[kind](argument, options.get("in"), streams)
    if "log" not in options:
        return backend
    try:
        return PeriodLog(backend, options["log"])
    except UsageError:
        backend.close()
        raise


def _options(kind: str, texts: list[str]) -> dict[str, str]:
    known = {"streams", "log"} | ({"in"} if kind == "wav" else set())
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in known or not equals:
            raise UsageError(f"--audio {kind}: unknown option {text!r} (a comma cannot be part of a file's name)")
        if not value or name in options:
            raise UsageError(f"--audio {kind}: {name}= needs one value")
        options[name] = value
    return options


def _parse_streams(text: str) -> tuple[int, int]:
    counts = [int(part) if len(part) == 1 and part in "012345678" else -1 for part in text.split("+")]
    if len(counts) != 2 or min(counts) < 0:
        raise UsageError(f"--audio: streams={text}: use OUT+IN, like 2+1, at most {_MOST_STREAMS} of each")
    return counts[0], counts[1]


def _null(_argument: str, _source: str | None, streams: tuple[int, int]) -> AudioBackend:
    return NullSink(streams=streams)


def _wav(path: str, source: str | None, streams: tuple[int, int]) -> AudioBackend:
    return WavSink(path, source=source, streams=streams)


def _loopback(frames: str, _source: str | None, streams: tuple[int, int]) -> AudioBackend:
    if not frames:
        return Loopback(streams=streams)
    if not (frames.isascii() and frames.isdigit() and len(frames) < 10 and int(frames) <= _MOST_FRAMES):
        raise UsageError(f"--audio loopback:{frames}: use a number of frames, at most {_MOST_FRAMES}")
    return Loopback(int(frames), streams=streams)


_KINDS: dict[str, Callable[[str, str | None, tuple[int, int]], AudioBackend]] = {
    "null": _null,
    "wav": _wav,
    "loopback": _loopback,
}
