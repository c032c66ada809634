"""Converts a stream's bytes to numbers and back, and one number of channels to another.

Numbers are float32 with full scale 1.0, which holds 24 bits exactly, in planes (channel, frame).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from devices.audio.pcm import PcmParams
from devices.audio.resample import Planes

__all__ = ["decode", "encode", "mix"]

_INTEGERS = {"S8": "i1", "U8": "u1", "S16": "<i2", "U16": "<u2", "S32": "<i4", "U32": "<u4"}
_FLOATS = {"FLOAT": "<f4", "FLOAT64": "<f8"}
_BITS = {"S24": 24, "S24_3": 24}
_HALF = 0.7071067811865476  # of the power


def decode(data: bytes, params: PcmParams) -> Planes:
    """Return frames as planes. A float that is not a number, or far too large, is made harmless."""
    name = params.format.name
    if name in _FLOATS:
        floats = np.frombuffer(data, _FLOATS[name]).reshape(-1, params.channels).T
        numbers: Planes = np.clip(np.nan_to_num(floats, nan=0.0), -4.0, 4.0).astype(np.float32)
        return numbers
    if name in _INTEGERS:
        integers: npt.NDArray[Any] = np.frombuffer(data, _INTEGERS[name])
        if params.format.is_unsigned:
            integers = (integers ^ (1 << 8 * params.format.size - 1)).view(f"i{params.format.size}")
    elif name == "S24":
        integers = np.frombuffer(data, "<i4") << 8 >> 8
    else:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        integers = padded.view("<i4").reshape(-1) >> 8
    planes = np.ascontiguousarray(integers.reshape(-1, params.channels).T, np.float32)
    planes *= np.float32(2.0 ** (1 - _bits(params)))
    return planes


def encode(planes: Planes, params: PcmParams) -> npt.NDArray[np.uint8]:
    """Return an array (frame, byte of the frame); samples beyond full scale are clipped."""
    name = params.format.name
    frames = np.ascontiguousarray(planes.T)
    if name in _FLOATS:
        data: npt.NDArray[Any] = frames.astype(_FLOATS[name])
    else:
        bits = _bits(params)
        full = 2.0 ** (bits - 1)
        values = np.clip(np.rint(frames.astype(np.float64) * full), -full, full - 1).astype("<i4")
        if name in _INTEGERS:
            data = values.astype(f"<i{params.format.size}")
            if params.format.is_unsigned:
                data = data.view(f"<u{params.format.size}") ^ (1 << bits - 1)
        elif name == "S24":
            data = values
        else:
            data = np.ascontiguousarray(values).view(np.uint8).reshape(*values.shape, 4)[..., :3]
    return np.ascontiguousarray(data).view(np.uint8).reshape(len(frames), params.frame_size)


def _bits(params: PcmParams) -> int:
    return _BITS.get(params.format.name, 8 * params.format.size)


def mix(planes: Planes, channels: int) -> Planes:
    """Convert to ``channels`` channels: mono to all, all to mono, surround to stereo by side.

    ALSA's order is front left, front right, rear left, rear right, centre, bass, side left, side right (a third channel
    alone is the bass).
    """
    have = len(planes)
    if have == channels:
        return planes
    if have == 1:
        return np.repeat(planes, channels, axis=0)
    if channels == 1:
        mono: Planes = planes.mean(axis=0, keepdims=True, dtype=np.float32)
        return mono
    if channels > have:
        return np.concatenate((planes, np.zeros((channels - have, planes.shape[1]), np.float32)))
    weights = np.zeros((channels, have), np.float32)
    for number in range(have):
        if number in (2, 4, 5) and (number != 2 or have == 3):  # in the middle
            weights[:2, number] = _HALF
        else:
            weights[number % 2, number] = 1.0 if number < 2 else _HALF
    mixed: Planes = weights @ planes
    return mixed
