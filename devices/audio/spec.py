"""Parses ``--audio``: BACKEND[:ARGUMENT][,OPTION[=VALUE]]...

What is not the default is imported where it is used: it would delay every start.
"""

import re
from collections.abc import Callable, Mapping

from devices.audio.auto import AutoAudio
from devices.audio.base import AudioBackend
from devices.audio.latency import LATENCY, parse_latency
from devices.audio.null import NullSink
from devices.errors import UsageError

__all__ = ["parse"]

_HELP = (
    "use null, wav:OUT.wav[,in=IN.wav][,max=4G][,continue], loopback[:FRAMES], host[:NAME][,latency=100ms] or auto, "
    "and with any ,streams=OUT+IN or ,log=OUT.jsonl"
)
#: Linux has room for eight PCM devices on a card.
_MOST_STREAMS = 8
#: How long (s) a device that nobody asked for stays open after the last sound.
_LINGER = 10.0
#: Ten seconds of the highest rate.
_MOST_FRAMES = 3_840_000


def parse(text: str, *, real_time: bool = True) -> AudioBackend:
    """Make the backend that ``text`` describes; raises UsageError. Nothing is opened before all of it is understood.

    Without ``real_time`` (the machine's clock warps) nothing can be played on the host.
    """
    first, *rest = text.split(",")
    kind, colon, argument = first.partition(":")
    bare = kind in {"null", "auto"}
    if kind not in _KINDS or (colon and (bare or (not argument and kind != "wav"))):
        hint = f"did you mean wav:{text}?" if first.lower().endswith(".wav") else _HELP
        raise UsageError(f"--audio {text}: no such backend; {hint}")
    if kind == "wav" and not argument:
        raise UsageError("--audio wav: the name of the file is missing; use wav:OUT.wav")
    options = _options(kind, rest)
    streams = _parse_streams(options.get("streams", "1+1"))
    if kind == "host" and not real_time:
        raise UsageError(f"--audio {text}: the host's devices play in real time; use --clock host, or a wav file")
    backend = _KINDS[kind if kind != "auto" or real_time else "null"](argument, options, streams)
    if "log" not in options:
        return backend
    from devices.audio.periodlog import PeriodLog  # noqa: PLC0415

    try:
        return PeriodLog(backend, options["log"])
    except UsageError:
        backend.close()
        raise


def _options(kind: str, texts: list[str]) -> dict[str, str]:
    known, flags = {"streams", "log", *_OPTIONS.get(kind, ())}, _FLAGS.get(kind, ())
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if text in flags:
            if text in options:
                raise UsageError(f"--audio {kind}: {text} is there twice")
            options[text] = ""
            continue
        if name not in known or not equals:
            has = ", ".join([*(f"{name}=" for name in sorted(known)), *flags])
            raise UsageError(f"--audio {kind}: unknown option {text!r}; there are {has} (a file's name has no comma)")
        if not value or name in options:
            raise UsageError(f"--audio {kind}: {name}= needs one value")
        options[name] = value
    return options


def _parse_streams(text: str) -> tuple[int, int]:
    counts = [int(part) if len(part) == 1 and part in "012345678" else -1 for part in text.split("+")]
    if len(counts) != 2 or min(counts) < 0:
        raise UsageError(f"--audio: streams={text}: use OUT+IN, like 2+1, at most {_MOST_STREAMS} of each")
    return counts[0], counts[1]


def _null(_argument: str, _options: Mapping[str, str], streams: tuple[int, int]) -> AudioBackend:
    return NullSink(streams=streams)


def _wav(path: str, options: Mapping[str, str], streams: tuple[int, int]) -> AudioBackend:
    from devices.audio.wav import WavSink  # noqa: PLC0415

    limit = {} if "max" not in options else {"limit": _parse_bytes(options["max"])}
    return WavSink(path, source=options.get("in"), streams=streams, resume="continue" in options, **limit)


def _parse_bytes(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,14})([KMGT]?)", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise UsageError(f"--audio wav: max={text}: use a size, like 500M or 16G")
    return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")


def _loopback(frames: str, _options: Mapping[str, str], streams: tuple[int, int]) -> AudioBackend:
    from devices.audio.loopback import Loopback  # noqa: PLC0415

    if not frames:
        return Loopback(streams=streams)
    if not (frames.isascii() and frames.isdigit() and len(frames) < 10 and int(frames) <= _MOST_FRAMES):
        raise UsageError(f"--audio loopback:{frames}: use a number of frames, at most {_MOST_FRAMES}")
    return Loopback(int(frames), streams=streams)


def _host(name: str, options: Mapping[str, str], streams: tuple[int, int]) -> AudioBackend:
    latency = _latency(options)
    from devices.audio.host.backend import HostAudio  # noqa: PLC0415 - numpy and PortAudio, which nothing else needs

    return HostAudio(name, latency=latency, streams=streams)


def _auto(_argument: str, options: Mapping[str, str], streams: tuple[int, int]) -> AudioBackend:
    latency = _latency(options)

    def make() -> AudioBackend:
        from devices.audio.host.backend import HostAudio  # noqa: PLC0415

        return HostAudio(latency=latency, streams=streams, linger=_LINGER)

    return AutoAudio(make, latency=latency, streams=streams)


def _latency(options: Mapping[str, str]) -> float:
    return parse_latency(options["latency"]) if "latency" in options else LATENCY


_OPTIONS = {"wav": ("in", "max"), "host": ("latency",), "auto": ("latency",)}
#: Options without a value.
_FLAGS = {"wav": ("continue",)}
_KINDS: dict[str, Callable[[str, Mapping[str, str], tuple[int, int]], AudioBackend]] = {
    "null": _null,
    "host": _host,
    "auto": _auto,
    "wav": _wav,
    "loopback": _loopback,
}
