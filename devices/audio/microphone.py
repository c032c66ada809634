"""Sound from Python for the guest to record: numpy arrays, one after the other."""

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from devices.audio.base import SamplesState
from devices.audio.pcm import PcmParams
from devices.errors import UsageError
from devices.state import check

if TYPE_CHECKING:
    import numpy as np

    Samples = np.ndarray[Any, Any]

__all__ = ["Microphone"]

logger = logging.getLogger(__name__)

_KINDS = ("uint8", "int16", "int32", "float32", "float64")
_SAY_KINDS = f"{', '.join(_KINDS[:-1])} or {_KINDS[-1]}"


class Microphone:
    """Samples played into it wait until the guest records them, at whatever rate."""

    def __init__(self) -> None:
        self._waiting: deque[Samples] = deque()  # arrays (frame, channel)

    def play(self, samples: "Samples") -> None:
        """Queue ``samples``, an array (frame,) or (frame, channel), after what is already waiting.

        The type is uint8, int16, int32 (full scale), float32 or float64 (full scale from -1 to 1). A sample with no
        more bits than the guest's arrives exactly; others are rounded, and floats clipped. A single channel is
        recorded on all of the guest's; otherwise their numbers must match.

        Raises UsageError for any other array.
        """
        if not hasattr(samples, "ndim"):
            raise UsageError(
                f"{type(samples).__name__} is not sound; use a numpy array (frame, channel) of {_SAY_KINDS}"
            )
        if samples.ndim == 1:
            samples = samples.reshape(-1, 1)
        if samples.ndim != 2 or samples.dtype.name not in _KINDS or not samples.shape[1]:
            raise UsageError(
                f"an array {samples.shape} of {samples.dtype} is not sound; use (frame, channel) of {_SAY_KINDS}"
            )
        if len(samples):
            self._waiting.append(samples.copy())

    @property
    def frames(self) -> int:
        """How many frames are waiting to be recorded."""
        return sum(map(len, self._waiting))

    def state(self) -> list[SamplesState]:
        """Return what is waiting."""
        return [
            {
                "kind": samples.dtype.name,
                "channels": samples.shape[1],
                "data": samples.astype(samples.dtype.newbyteorder("<")).tobytes(),
            }
            for samples in self._waiting
        ]

    def restore(self, state: list[SamplesState]) -> None:
        """Have that wait again, instead of what does."""
        self._waiting = deque(map(_restored, state))

    def read(self, params: PcmParams, count: int) -> bytes:
        """Take the next ``count`` frames, or as many as there are, converted to ``params``."""
        taken = []
        while count and self._waiting:
            samples = self._waiting.popleft()
            if samples.shape[1] not in {1, params.channels}:
                logger.warning("the guest records %s, not the %d channels played to it", params, samples.shape[1])
                continue
            taken.append(_convert(samples[:count], params))
            if len(samples) > count:
                self._waiting.appendleft(samples[count:])
            count -= min(count, len(samples))
        return b"".join(taken)


def _restored(state: SamplesState) -> "Samples":
    import numpy as np  # noqa: PLC0415 - 85 ms to import, and most machines have no samples

    kind, channels, data = state["kind"], state["channels"], state["data"]
    check(kind in _KINDS and channels > 0, "what waits to be recorded")
    dtype = np.dtype(kind).newbyteorder("<")
    check(len(data) > 0 and not len(data) % (dtype.itemsize * channels), "what waits to be recorded")
    return np.frombuffer(data, dtype).reshape(-1, channels)


def _convert(samples: "Samples", params: PcmParams) -> bytes:
    """Return frames in the format and with the channels of ``params``."""
    import numpy as np  # noqa: PLC0415 - 85 ms to import; who plays arrays has done so

    samples = np.broadcast_to(samples, (len(samples), params.channels))
    fmt = params.format
    if fmt.is_float:
        return (samples if samples.dtype.kind == "f" else _to_float(samples)).astype(f"<f{fmt.size}").tobytes()
    bits = 8 * fmt.significant
    if samples.dtype.kind == "f":
        top = float(2 ** (bits - 1))
        level = np.clip(np.nan_to_num(samples.astype(np.float64)), -1, 1)
        values = np.minimum(np.rint(level * top), top - 1).astype(np.int64)
    else:
        values = _to_signed(samples)
        narrower = 8 * samples.dtype.itemsize - bits
        if narrower > 0:
            values = np.minimum((values + (1 << (narrower - 1))) >> narrower, (1 << (bits - 1)) - 1)
        else:
            values <<= -narrower
    if fmt.is_unsigned:
        values += 1 << (bits - 1)
    octets = np.ascontiguousarray(values.astype("<i8")).view(np.uint8)
    return octets.reshape(-1, 8)[:, : fmt.size].tobytes()


def _to_signed(samples: "Samples") -> "Samples":
    """Return integers around 0, as int64: the zero of unsigned samples is in the middle."""
    return samples.astype("<i8") - (128 if samples.dtype.kind == "u" else 0)


def _to_float(samples: "Samples") -> "Samples":
    return _to_signed(samples) / float(2 ** (8 * samples.dtype.itemsize - 1))
