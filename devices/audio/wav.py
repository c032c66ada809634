"""What the guest plays, in WAV files: exactly the frames that were played, in order, and nothing else.

Silence that was heard because the guest had nothing to play is not in the file, and neither is a period that was cut
short (devices/virtio/sound/output.py says why). Sounds of the same format, rate and channels follow each other in one
file. A sound that differs starts the next: OUT.wav, OUT.2.wav, OUT.3.wav ...; so does one that would make a file
larger than the 4 GiB that WAV can describe.

The first output stream has OUT.wav, the others OUT-s1.wav, OUT-s2.wav ..., created when they play.

The user has named only OUT.wav, and the guest decides how many files follow; a name in use is therefore skipped, and
the number of files and of their bytes is limited.
"""

import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.audio.base import AudioBackend, Capture, Playback
from devices.audio.null import SilentCapture
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from devices.audio.wavsource import WavSource
from devices.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["WavSink"]

logger = logging.getLogger(__name__)

#: What the file's header says while nothing has been played.
_UNTOUCHED = PcmParams(FORMATS["S16"], 48000, 2)
#: For all streams together: the most files, and the default limit of bytes, six hours of 48 kHz stereo.
_MOST_FILES = 100
_MOST_BYTES = 4 << 30


class WavSink(AudioBackend):
    """Backend ``wav:OUT.wav``. Input streams record from the WAV file ``source``, or silence.

    Both files are opened at once, so that a path that cannot work is reported before the guest runs (UsageError). If
    writing fails later (a full disk, more than ``limit`` bytes), a warning says so once; what was written stays valid,
    and the guest plays on. When its machine goes back to an earlier state, the files go on with what is played from
    there; what was played since stays in them.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: str | os.PathLike[str] | None = None,
        streams: tuple[int, int] = (1, 1),
        limit: int = _MOST_BYTES,
    ) -> None:
        self.path = Path(path)
        self.streams = streams
        self.source = None if source is None else WavSource(source)
        if self.source is not None and self.source.is_file(self.path):
            self.source.close()
            raise UsageError(f"cannot record from {self.path} and write to it")
        self._limit = _Limit(limit)
        self._tracks = {0: _Track(self.path, self._limit)}
        try:
            self._tracks[0].begin(_UNTOUCHED)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            self.close()
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot write sound to {self.path}: {reason}") from error

    @property
    def played(self) -> int:
        """Frames played, including those that could not be written."""
        return sum(track.played for track in self._tracks.values())

    @property
    def lost(self) -> int:
        """Frames played that could not be written."""
        return sum(track.lost for track in self._tracks.values())

    @property
    def files(self) -> list[WavFile]:
        """The files written: the first stream's, oldest first, then the next stream's."""
        return [file for _, track in sorted(self._tracks.items()) for file in track.files]

    @property
    def frames(self) -> "np.ndarray[Any, Any]":
        """What is in the first stream's newest file, as an array (frame, channel); 24-bit samples as int32, S8 as
        uint8 and so on, as wavfile.py stores them.
        """  # noqa: D205
        return self._tracks[0].files[-1].read()

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Continue in the stream's newest file if it holds the same kind of frames, else in the next one."""
        return _WavPlayback(self._track(stream), params)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:  # noqa: ARG002 - each has the whole source
        """Record the source from its beginning."""
        return SilentCapture(params) if self.source is None else self.source.open_capture(params)

    def record(self, stream: int, params: PcmParams, data: bytes) -> None:
        """Append frames of ``params`` that a stream has played."""
        self._track(stream).record(params, data)

    def _track(self, stream: int) -> "_Track":
        if stream not in self._tracks:
            path = self.path.with_name(f"{self.path.stem}-s{stream}{self.path.suffix}")
            self._tracks[stream] = _Track(path, self._limit, named=False)
        return self._tracks[stream]

    def summary(self) -> list[str]:
        """Return what each file contains."""
        if not self.played:
            return [f"{self.path}: nothing was played"]
        lines = [f"{file.path}: {file.frames} frames ({file.frames / file.params.rate:.3f} s), {file.params}"
                 for file in self.files if file.frames]  # fmt: skip
        lines += [f"{track.lost} frames that were played are missing: {track.error}"
                  for _, track in sorted(self._tracks.items()) if track.error is not None]  # fmt: skip
        return lines

    def close(self) -> None:
        """Close the files; they are complete at every moment."""
        self._limit.closed = True
        for file in self.files:
            file.close()
        if self.source is not None:
            self.source.close()


class _Limit:
    """How much a guest may write, over all its streams; raises OSError when it wants more."""

    def __init__(self, size: int) -> None:
        self.closed = False  # then nothing more is written
        self._size = self._room = size
        self._files = 0

    def take_file(self) -> None:
        """Count one more file."""
        if self._files == _MOST_FILES:
            raise OSError(errno.EFBIG, f"the guest wants more than {_MOST_FILES} files, one for each change of format")
        self._files += 1

    def take(self, size: int) -> None:
        """Count ``size`` bytes more."""
        if size > self._room:
            raise OSError(errno.EFBIG, f"more than {self._size} bytes of sound; max=16G would allow for more")
        self._room -= size


class _Track:
    """What one stream has played: ``path`` and the files that follow; ``named`` says that the user named the first."""

    def __init__(self, path: Path, limit: _Limit, *, named: bool = True) -> None:
        self.files: list[WavFile] = []
        self.played = self.lost = 0  # frames
        self.error: str | None = None
        self._path = path
        self._limit = limit
        self._overwrite = named
        self._number = 0  # of the newest file

    def begin(self, params: PcmParams) -> WavFile:
        """Make the next file, which must not exist unless the user named it; raises OSError, ValueError."""
        self._limit.take_file()
        file = None
        while file is None:
            self._number += 1
            name = f"{self._path.stem}.{self._number}{self._path.suffix}"
            path = self._path if self._number == 1 else self._path.with_name(name)
            with contextlib.suppress(FileExistsError):
                file = WavFile(path, params, overwrite=self._overwrite)
        self._overwrite = False
        if self.files:
            self.files[-1].close()
        self.files.append(file)
        return file

    def record(self, params: PcmParams, data: bytes) -> None:
        """Append frames, or report once why that fails."""
        frames = len(data) // params.frame_size
        self.played += frames
        if self._limit.closed:
            return
        if self.error is None:
            try:
                self._limit.take(len(data))
                self._file_for(params, len(data)).append(data)
            except OSError as error:
                self.error = error.strerror or str(error)
                path = self.files[-1].path if self.files else self._path
                logger.warning("%s: %s; the sound from here on is lost", path, self.error)
        if self.error is not None:
            self.lost += frames

    def _file_for(self, params: PcmParams, size: int) -> WavFile:
        if not self.files:
            return self.begin(params)
        newest = self.files[-1]
        if newest.frames == 0 and newest.params != params:
            newest.reuse(params)
        return newest if newest.params == params and newest.has_room(size) else self.begin(params)


class _WavPlayback(Playback):
    def __init__(self, track: _Track, params: PcmParams) -> None:
        self._track = track
        self._params = params

    def write(self, data: bytes) -> None:
        self._track.record(self._params, data)
