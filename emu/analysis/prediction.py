"""Where sound is unpredictable: the error of a linear prediction, and where it stands out.

A sample of tones or music is nearly a weighted sum of those before it. Where samples were cut, pasted or overwritten it
is not, for exactly one sample, whatever the pitch, loudness and drift of the sound.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from emu.analysis.tone import peak
from emu.terminal.progress import unseen

__all__ = ["ORDER", "discontinuities"]

Samples = npt.NDArray[np.float64]
#: Magnitudes; single precision, because a long sound has many.
_Errors = npt.NDArray[np.float32]

#: How many samples the next is predicted from.
ORDER = 32
_BLOCK = 4096  # samples that share weights
_CHUNK = 2048  # samples over which the usual error is estimated
_INAUDIBLE = 1e-4  # of the peak, -80 dB
# The usual error is a Gaussian's sigma, even with some outliers.
_SIGMA_OF_MEDIAN = 1.4826
_SIGMA_OF_95 = 1 / 1.96


def discontinuities(
    samples: Samples, quantum: float, outlier: float, progress: Callable[[float], None] = unseen
) -> npt.NDArray[np.intp]:
    """Positions of the samples that do not fit those before them; ``quantum`` is the step between values.

    An error counts if it is ``outlier`` times the usual one around it: in noise 8 does not occur by chance, in speech
    30 does (plosives). The first ORDER samples are never included: too little comes before them.
    """
    error = _prediction_error(samples, progress)
    # The kink where a fade ends is no larger than that.
    inaudible = _INAUDIBLE * peak(samples)
    found = [
        start + np.flatnonzero(error[start : start + _CHUNK] > max(outlier * max(usual, quantum / 12**0.5), inaudible))
        for start, usual in _usual(error)
    ]
    return np.concatenate(found) if found else np.empty(0, np.intp)


def _prediction_error(samples: Samples, progress: Callable[[float], None]) -> _Errors:
    error = np.zeros(len(samples), np.float32)
    order = min(ORDER, len(samples) // 8)
    if order < 2:
        return error
    past = np.lib.stride_tricks.sliding_window_view(samples, order)
    for start in range(order, len(samples), _BLOCK):
        progress(start / len(samples))
        end = min(start + _BLOCK, len(samples))
        # A short last block is predicted with the weights of a full one.
        first = max(min(start, end - _BLOCK), order)
        known, next_one = past[first - order : end - order], samples[first:end]
        error[start:end] = np.abs(_fit_and_predict(known, next_one)[start - first :])
    return error


def _fit_and_predict(known: Samples, next_one: Samples) -> Samples:
    error = next_one - known @ _weights(known, next_one)
    # The weights should not adapt to what is to be found.
    good = np.abs(error) <= 6 * _typical(np.abs(error))
    if not good.all() and np.count_nonzero(good) > 8 * known.shape[1]:
        error = next_one - known @ _weights(known[good], next_one[good])
    return error


def _typical(error: Samples) -> Samples:
    """Like ``_usual``, but over a narrower range: a block may hold both loud sound and silence."""
    pieces = np.array_split(error, max(len(error) // 256, 1))
    return np.concatenate([np.full(len(piece), _SIGMA_OF_MEDIAN * float(np.median(piece))) for piece in pieces])


def _weights(known: Samples, next_one: Samples) -> Samples:
    rows, order = known.shape
    # In pieces small enough that BLAS uses no threads: waiting for them takes longer than the work.
    piece = min(rows, 128)
    rows -= rows % piece
    stack = known[:rows].reshape(-1, piece, order)
    gram = (stack.transpose(0, 2, 1) @ stack).sum(axis=0)
    # Many sets of weights predict a pure tone; prefer small ones.
    gram.flat[:: order + 1] += 1e-13 * np.trace(gram) + 1e-300
    return np.linalg.solve(gram, next_one[:rows] @ known[:rows])


def _usual(error: _Errors) -> Iterator[tuple[int, float]]:
    """Each chunk's start and the usual error around it; where the sound gets louder, that of the louder part."""
    sigmas = []
    for start in range(0, len(error), _CHUNK):
        chunk = error[start : start + _CHUNK]
        middle, high = np.quantile(chunk, (0.5, 0.95)).tolist()
        sigmas.append(max(middle * _SIGMA_OF_MEDIAN, high * _SIGMA_OF_95))
    for index in range(len(sigmas)):
        yield index * _CHUNK, max(sigmas[max(index - 1, 0) : index + 2])
