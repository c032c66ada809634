"""What the guest plays, in WAV files: exactly the frames that were played, in order, and nothing else.

Silence that was heard because the guest had nothing to play is not in the file, and neither is a period that was cut
short (devices/virtio/sound/output.py says why). Sounds of the same format, rate and channels follow each other in one
file. A sound that differs starts the next: OUT.wav, OUT.2.wav, OUT.3.wav ...; so does one that would make a file
larger than the 4 GiB that WAV can describe.

The first output stream has OUT.wav, the others OUT-s1.wav, OUT-s2.wav ..., created when they play.

The user has named only OUT.wav, and the guest decides how many files follow; a name in use is therefore skipped, and
the number of files and of their bytes is limited.

A machine that goes on from a snapshot, or goes back to one, can also go on in the files of the machine that was saved,
with the option ``continue``. They become what they were then: OUT.wav, OUT.2.wav ... are cut off after as many frames
as they had, so that the next one follows the last that had been played, and those that this process has begun since
are removed. The snapshot has no names of files: they follow from OUT.wav. Each must be there, hold frames of the same
kind and no fewer than then; if one does not, the machine does not start (UsageError). The limits count what is there.
What the saved machine, in another process, has begun since is in use, and skipped. What is cut off is gone: a machine
that has gone back cannot go on to a snapshot that was taken later, unless it has played as much again.

With ``continue`` but nothing to go on from, because there is no snapshot or its machine had no such files, what is
played is appended to OUT.wav, if there is one (and if it is of the same kind; otherwise it starts the next).
"""

import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.audio.base import AudioBackend, AudioState, Capture, FileState, Playback
from devices.audio.null import SilentCapture
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from devices.audio.wavsource import WavSource
from devices.errors import UsageError
from devices.state import check

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
    and the guest plays on.

    When its machine becomes what is in a snapshot, the files go on with what is played from there, and whatever was in
    them stays; with ``resume`` they go back, too, or on from where that machine's were (``wav:OUT.wav,continue``).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: str | os.PathLike[str] | None = None,
        streams: tuple[int, int] = (1, 1),
        limit: int = _MOST_BYTES,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.streams = streams
        self.source = None if source is None else WavSource(source)
        if self.source is not None and self.source.is_file(self.path):
            self.source.close()
            raise UsageError(f"cannot record from {self.path} and write to it")
        self._resume = resume
        self._limit = _Limit(limit)
        self._tracks = {0: _Track(self.path, self._limit)}
        # Whether the first file is not one to go on in.
        self._made_first = not (resume and os.path.exists(self.path))  # noqa: PTH110 - False for what is no path
        try:
            if not self._made_first:
                self._tracks[0].append_to_first()
            else:
                self._tracks[0].begin(_UNTOUCHED)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            self.close()
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot write sound to {self.path}: {reason}") from error

    @property
    def played(self) -> int:
        """Frames played, including those that could not be written; of a machine resumed, since its power-on."""
        return sum(track.played for track in self._tracks.values())

    @property
    def lost(self) -> int:
        """Frames played that could not be written."""
        return sum(track.lost for track in self._tracks.values())

    @property
    def files(self) -> list[WavFile]:
        """The files written: the first stream's, oldest first, then the next stream's."""
        return [file for _, track in sorted(self._tracks.items()) for file in track.files.values()]

    @property
    def frames(self) -> "np.ndarray[Any, Any]":
        """What is in the first stream's newest file, as an array (frame, channel); 24-bit samples as int32, S8 as
        uint8 and so on, as wavfile.py stores them.
        """  # noqa: D205
        return self._tracks[0].newest.read()

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        """Continue in the stream's newest file if it holds the same kind of frames, else in the next one."""
        return _WavPlayback(self, stream, params)

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

    def state(self) -> AudioState:
        """Return how far the files have got."""
        files = [state for stream, track in sorted(self._tracks.items()) for state in track.states(stream)]
        return {**super().state(), "files": files, "lost": self.lost}

    def restore(self, state: AudioState) -> None:
        """With ``resume``, make the files what they were then, and go on in them; raises UsageError if that fails."""
        if not self._resume or not state["files"]:
            return
        if state["lost"]:
            raise UsageError(f"cannot go on in {self.path}: of what had been played when the machine was saved, "
                             f"{state['lost']} frames are missing; leave out continue")  # fmt: skip
        _check(state["files"], self.streams[0])
        try:
            self._go_back(state["files"])
        except OSError as error:
            raise UsageError(f"cannot go on in {self.path}: {error.strerror}") from error

    def _go_back(self, states: list[FileState]) -> None:
        before = self.files
        for file in before:
            file.close()  # to be opened again, like another process's
        if self._made_first and not before[0].frames and states[0]["frames"]:
            before[0].remove()  # the user has named another machine's, which is not there
        self._limit = _Limit(self._limit.size, closed=True)  # unless all of this succeeds
        self._tracks = {0: _Track(self.path, self._limit)}
        files = [self._track(state["stream"]).reopen(state) for state in states]
        for file in files:
            if self.source is not None and self.source.is_file(file.path):
                raise UsageError(f"cannot record from {file.path} and write to it")
        for file, state in zip(files, states, strict=True):
            file.keep(_params(state), state["frames"])
        for track in self._tracks.values():
            track.close_older()
        self._limit.closed = self._made_first = False
        kept = {file.path for file in files}
        for file in before:
            if file.path not in kept:
                file.remove()

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

    def __init__(self, size: int, *, closed: bool = False) -> None:
        self.size = self._room = size
        self.closed = closed  # then nothing more is written
        self._files = 0

    def take_file(self) -> None:
        """Count one more file."""
        if self._files == _MOST_FILES:
            raise OSError(errno.EFBIG, f"the guest wants more than {_MOST_FILES} files, one for each change of format")
        self._files += 1

    def take(self, size: int) -> None:
        """Count ``size`` bytes more."""
        if size > self._room:
            raise OSError(errno.EFBIG, f"more than {self.size} bytes of sound; max=16G would allow for more")
        self._room -= size


class _Track:
    """What one stream has played: ``path`` and the files that follow; ``named`` says that the user named the first."""

    def __init__(self, path: Path, limit: _Limit, *, named: bool = True) -> None:
        self.files: dict[int, WavFile] = {}  # by number, the newest last
        self.played = self.lost = 0  # frames
        self.error: str | None = None
        self._path = path
        self._limit = limit
        self._named = named

    @property
    def newest(self) -> WavFile:
        """The file that goes on; there must be one."""
        return self.files[max(self.files)]

    def begin(self, params: PcmParams) -> WavFile:
        """Make the next file, which must not exist unless the user named it; raises OSError, ValueError."""
        self._limit.take_file()
        number, file = max(self.files, default=0), None
        while file is None:
            number += 1
            with contextlib.suppress(FileExistsError):
                file = WavFile(self._path_of(number), params, mode="w" if self._is_named(number) else "x")
        if self.files:
            self.newest.close()
        self.files[number] = file
        return file

    def append_to_first(self) -> None:
        """Go on at the end of the file that the user named; raises OSError."""
        self._limit.take_file()
        file = self.files[1] = WavFile(self._path, None, mode="r+")
        self._limit.take(file.frames * file.params.frame_size)

    def states(self, stream: int) -> list[FileState]:
        """Return how far the files of this stream have got, for ``reopen``."""
        return [
            {
                "stream": stream,
                "number": number,
                "format": file.params.format.name,
                "rate": file.params.rate,
                "channels": file.params.channels,
                "frames": file.frames,
            }
            for number, file in self.files.items()
        ]

    def reopen(self, state: FileState) -> WavFile:
        """Open a file that had got so far; raises UsageError if it cannot be brought back there."""
        number, frames, path = state["number"], state["frames"], self._path_of(state["number"])
        params = _params(state)
        try:
            self._limit.take_file()
            self._limit.take(frames * params.frame_size)
            # One that was still empty may have become of any kind since.
            kind, follow = params if frames else None, self._is_named(number)
            file = self.files[number] = WavFile(path, kind, mode="r+", follow=follow)
        except OSError as error:
            raise UsageError(f"cannot go on in {path}: {error.strerror}") from error
        if file.frames < frames:
            raise UsageError(
                f"cannot go on in {path}: it has {file.frames} frames, and had {frames} when the machine was saved"
            )
        self.played += frames
        return file

    def close_older(self) -> None:
        """Close all files but the one that goes on."""
        for file in self.files.values():
            if file is not self.newest:
                file.close()

    def _path_of(self, number: int) -> Path:
        return self._path if number == 1 else self._path.with_name(f"{self._path.stem}.{number}{self._path.suffix}")

    def _is_named(self, number: int) -> bool:
        return self._named and number == 1

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
                path = self.newest.path if self.files else self._path
                logger.warning("%s: %s; the sound from here on is lost", path, self.error)
        if self.error is not None:
            self.lost += frames

    def _file_for(self, params: PcmParams, size: int) -> WavFile:
        if not self.files:
            return self.begin(params)
        newest = self.newest
        if newest.frames == 0 and newest.params != params:
            newest.keep(params, 0)
        return newest if newest.params == params and newest.has_room(size) else self.begin(params)


class _WavPlayback(Playback):
    def __init__(self, sink: WavSink, stream: int, params: PcmParams) -> None:
        self._sink = sink
        self._stream = stream
        self._params = params

    def write(self, data: bytes) -> None:
        self._sink.record(self._stream, self._params, data)


def _check(files: list[FileState], streams: int) -> None:
    """Raise UsageError unless a sink of so many streams can have had these files."""
    places = [(one["stream"], one["number"]) for one in files]
    check(
        places[0] == (0, 1)
        and places == sorted(set(places))
        and all(stream < max(streams, 1) and number > 0 for stream, number in places)
        and all(one["frames"] > 0 for one in files[1:]),
        "the files of sound",
    )


def _params(state: FileState) -> PcmParams:
    check(state["format"] in FORMATS, "the files of sound")
    params = PcmParams(FORMATS[state["format"]], state["rate"], state["channels"])
    check(0 < params.frame_size * params.rate < 1 << 32, "the files of sound")
    return params
