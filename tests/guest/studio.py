"""A booted guest with a sound studio: what it plays is kept byte for byte, and the test provides what it records.

    with studio(files, folder) as guest:
        guest.play(S16_STEREO, frames)
        assert heard(guest.tape.take(), S16_STEREO) == frames

The guest reads sounds from /dev/vda and writes recordings to /dev/vdb. They are host files, and a guest rereads a disk
that nobody holds open, so one boot serves many sounds.
"""

import random
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devices.audio import AudioBackend, Capture, PcmParams, Playback
from devices.audio.pcm import FORMATS
from devices.audio.wavfile import WavFile
from emu.machine import Machine
from emu.testing.evidence import draw
from tests.guest.conftest import Booted

S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)
RATES = (5512, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 64000, 88200, 96000, 176400, 192000, 384000)
#: Each format with four rates and channel counts, so that each of those meets several formats.
CASES = [
    PcmParams(FORMATS[name], RATES[(5 * i + 4 * k) % len(RATES)], (1, 2, 8, 3, 6, 4, 5, 7)[(3 * i + k) % 8])
    for i, name in enumerate(FORMATS)
    for k in range(4)
]
#: How long those sounds are.
SECONDS = 0.4

_MOST_DRAWN = 4


@dataclass
class Sound:
    """What was played from a PREPARE to the RELEASE after it."""

    params: PcmParams
    data: bytearray = field(default_factory=bytearray)


class Tape(AudioBackend):
    """A backend that keeps every sound played, unchanged; ``source`` is recorded, then silence."""

    def __init__(self) -> None:
        self.streams = (1, 1)
        self.sounds: list[Sound] = []
        #: The sounds last taken.
        self.taken: list[Sound] = []
        self.source = b""

    @property
    def played(self) -> int:
        return sum(len(sound.data) // sound.params.frame_size for sound in self.sounds)

    def open_playback(self, stream: int, params: PcmParams) -> Playback:
        self.sounds.append(Sound(params))
        return _Heard(self.sounds[-1].data)

    def open_capture(self, stream: int, params: PcmParams) -> Capture:
        return _Source(params, self.source)

    def take(self) -> list[Sound]:
        """Return the sounds since the last call, without streams that were opened but never played."""
        self.taken, self.sounds = [sound for sound in self.sounds if sound.data], []
        return self.taken

    def summary(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class _Heard(Playback):
    def __init__(self, data: bytearray) -> None:
        self._data = data

    def write(self, data: bytes) -> None:
        self._data += data


class _Source(Capture):
    def __init__(self, params: PcmParams, data: bytes) -> None:
        self._params = params
        self._data = data
        self._position = 0

    def read(self, size: int) -> bytes:
        data = self._data[self._position : self._position + size]
        self._position += size
        return data + self._params.silence(size - len(data))

    def skip(self, size: int) -> None:
        self._position += size


class Studio(Booted):
    """A booted guest, its two disks, and what it plays to."""

    #: The complaints that are allowed.
    excused: re.Pattern[bytes] | None = None

    def __init__(self, machine: Machine, song: Path, recording: Path, tape: Tape) -> None:
        super().__init__(machine)
        #: Its backend, unless another was requested.
        self.tape = tape
        self._song, self._recording = song, recording

    def complaints(self) -> list[bytes]:
        """The kernel messages that should not be there."""
        excused = self.excused
        return [line for line in super().complaints() if not (excused and excused.search(line))]

    def evidence(self) -> list[str]:
        """Keep and draw the sounds that the test last took from the tape, and those still on it."""
        sounds = [sound for sound in (*self.tape.taken, *self.tape.sounds) if sound.data]
        lines = super().evidence()
        folder = Path(tempfile.mkdtemp(prefix="failed-", dir=self._song.parent))
        for number, sound in enumerate(sounds[-_MOST_DRAWN:], 1):
            file = WavFile(folder / f"played-{number}.wav", sound.params)
            file.append(bytes(sound.data))
            file.close()
            lines += [f"{file.path}: {file.frames} frames, {sound.params}", draw(file.path)]
        return lines

    def load(self, frames: bytes) -> None:
        """Put frames where the guest reads them."""
        with self._song.open("r+b") as file:
            file.write(frames)

    def play(self, params: PcmParams, frames: bytes, options: str = "") -> None:
        """Play all of ``frames``, without a complaint."""
        self.load(frames)
        text = self.ok(aplay(params, len(frames), options))
        assert "underrun" not in text, text

    def record(self, params: PcmParams, frames: int, options: str = "") -> bytes:
        """Record ``frames`` frames without a complaint, and return them."""
        text = self.ok(arecord(params, frames, options))
        assert "overrun" not in text, text
        return self.recorded(params, frames)

    def recorded(self, params: PcmParams, frames: int) -> bytes:
        """What the guest has recorded."""
        with self._recording.open("rb") as file:
            return file.read(frames * params.frame_size)


@contextmanager
def studio(
    files: tuple[Path, Path],
    folder: Path,
    *,
    before: Callable[[Machine], None] = lambda _machine: None,
    room: int = 64 << 20,
    **options: Any,
) -> Iterator[Studio]:
    """Boot a guest on the warp clock, after ``before``, with ``room`` on each disk.

    At the end its kernel must not have complained.
    """
    song, recording = folder / "song", folder / "recording"
    for disk in (song, recording):
        with disk.open("wb") as file:
            file.truncate(room)
    tape = Tape()
    options = {"clock": "warp", "audio": tape, "disks": [f"{song},readonly", str(recording)], **options}
    with Machine(*files, **options) as machine:
        before(machine)
        guest = Studio(machine, song, recording, tape)
        guest.run("for i in p c; do echo 5 > /proc/asound/card0/pcm0$i/xrun_debug; done")  # all but stack traces
        yield guest
        complaints = guest.complaints()
        assert not complaints, complaints


def aplay(params: PcmParams, size: int, options: str = "") -> str:
    """The command that plays the first ``size`` bytes of /dev/vda."""
    return f"aplay -q -D hw:0,0 {raw(params)} -s {size // params.frame_size} {options} /dev/vda"


def arecord(params: PcmParams, frames: int, options: str = "") -> str:
    """The command that records ``frames`` frames to /dev/vdb."""
    return f"arecord -q -D hw:0,0 {raw(params)} -s {frames} {options} > /dev/vdb"


def raw(params: PcmParams) -> str:
    name = params.format.name
    endian = {"S24_3": "S24_3LE"}.get(name, name if params.format.size == 1 else f"{name}_LE")
    return f"-t raw -f {endian} -r {params.rate} -c {params.channels}"


def noise(params: PcmParams, frames: int, seed: int = 1) -> bytes:
    """Frames in which no two stretches are alike, and none is silent."""
    return random.Random(seed).randbytes(frames * params.frame_size).replace(b"\0", b"\1").replace(b"\x80", b"\x81")


def heard(sounds: list[Sound], params: PcmParams) -> bytes:
    """One sound of these parameters, without the silence with which ALSA fills its last period."""
    assert [sound.params for sound in sounds] == [params]
    data = bytes(sounds[0].data)
    silence = params.silence(params.frame_size)
    while data.endswith(silence):
        data = data[: -len(silence)]
    return data
