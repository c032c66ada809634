"""What the guest plays, in WAV files: exactly the frames that were played, in order, and nothing else.

Silence that was heard because the guest had nothing to play is not in the file, and neither is a period that was cut
short (devices/virtio/sound/stream.py says why). All sounds of the same format, rate and channels follow each other in
one file. A sound that differs begins the next: OUT.wav, OUT.2.wav, OUT.3.wav ...; so does one that would make a file
larger than the 4 GiB that WAV can tell.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.audio.base import Playback
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from emu.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["WavSink"]

logger = logging.getLogger(__name__)

#: What the file says while nothing has been played.
_UNTOUCHED = PcmParams(FORMATS["S16"], 48000, 2)


class WavSink:
    """Backend ``wav:OUT.wav``.

    The file is made at once, so that a path that cannot work is told before the guest runs (UsageError). When writing
    fails later (a full disk) a warning says so once; what was written stays valid and the guest plays on.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        #: Frames played, those included that could not be written.
        self.played = 0
        #: The files written, the oldest first.
        self.files: list[WavFile] = []
        self._error: str | None = None
        self._closed = False
        try:
            self.files.append(WavFile(self.path, _UNTOUCHED))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot write sound to {self.path}: {reason}") from error

    @property
    def frames(self) -> "np.ndarray[Any, Any]":
        """What is in the newest file, an array (frame, channel); 24-bit samples as int32, S8 as uint8 and so on:
        as wavfile.py stores them.
        """  # noqa: D205
        return self.files[-1].read()

    def open_playback(self, stream: int, params: PcmParams) -> Playback:  # noqa: ARG002 - there is one stream
        """Play on in the newest file if that holds the same kind of frames, else in the next one."""
        return _WavPlayback(self, params)

    def record(self, params: PcmParams, data: bytes) -> None:
        """Append frames of ``params``."""
        self.played += len(data) // params.frame_size
        if self._error is not None or self._closed:
            return
        try:
            self._file_for(params, len(data)).append(data)
        except OSError as error:
            self._error = error.strerror or str(error)
            logger.warning("%s: %s; the sound from here on is lost", self.files[-1].path, self._error)

    def _file_for(self, params: PcmParams, size: int) -> WavFile:
        newest = self.files[-1]
        if newest.frames == 0:
            if newest.params != params:
                newest.reuse(params)
        elif newest.params != params or not newest.has_room(size):
            name = f"{self.path.stem}.{len(self.files) + 1}{self.path.suffix}"
            newest.close()
            self.files.append(WavFile(self.path.with_name(name), params))
        return self.files[-1]

    def summary(self) -> list[str]:
        """Say of each file what is in it."""
        if not self.played:
            return [f"{self.path}: nothing was played"]
        lines = [f"{file.path}: {file.frames} frames ({file.frames / file.params.rate:.3f} s), {file.params}"
                 for file in self.files]  # fmt: skip
        if self._error is not None:
            lost = self.played - sum(file.frames for file in self.files)
            lines.append(f"{lost} frames that were played are missing: {self._error}")
        return lines

    def close(self) -> None:
        """Let go of the files; they are complete at every moment."""
        self._closed = True
        for file in self.files:
            file.close()


class _WavPlayback:
    latency_bytes = 0

    def __init__(self, sink: WavSink, params: PcmParams) -> None:
        self._sink = sink
        self._params = params

    def start(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self._sink.record(self._params, data)

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass
