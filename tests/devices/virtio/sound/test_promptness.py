"""A control request is answered without any work for the host: it touches no file and no device."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from devices.audio import AudioBackend, Loopback, NullSink, PcmParams, WavSink
from devices.audio.host.backend import HostAudio
from devices.audio.patchbay import Patchbay
from devices.audio.pcm import FORMATS
from devices.audio.periodlog import PeriodLog
from devices.audio.wavfile import WavFile
from tests.devices.audio.host.fake_portaudio import FakePortAudio
from tests.devices.virtio.sound.guest import (
    CTL_WRITE,
    OK,
    PREPARE,
    RELEASE,
    S16_STEREO,
    SECOND,
    START,
    STOP,
    Guest,
    noise,
)

OTHER = PcmParams(FORMATS["S32"], 48000, 2)


def wav(folder: Path) -> AudioBackend:
    source = WavFile(folder / "in.wav", S16_STEREO)
    source.append(noise(1, 4000))
    source.close()
    return WavSink(folder / "out.wav", source=source.path)


BACKENDS = {
    "null": lambda folder: NullSink(),
    "loopback": lambda folder: Loopback(),
    "wav": wav,
    "log": lambda folder: PeriodLog(wav(folder), folder / "out.jsonl"),
    "host": lambda folder: HostAudio(portaudio=FakePortAudio(), threads=False),
}


class HostCalls:
    """Notes every call into the operating system made within ``with``."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __enter__(self) -> None:
        sys.setprofile(self._notice)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _notice(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        module = function.__module__ or type(getattr(function, "__self__", None)).__module__
        name = getattr(function, "__qualname__", "")
        if module in {"posix", "_io", "io", "_socket", "fcntl", "select"} or name in {"sleep", "open"}:
            self.made.append(f"{module}.{name}")


@pytest.mark.parametrize("name", BACKENDS)
def test_no_command_works_for_the_host(tmp_path, name):
    backend = BACKENDS[name](tmp_path)
    guest = Guest(Patchbay(backend))
    calls = HostCalls()
    for pcm in (S16_STEREO, OTHER):
        with calls:
            for stream in (0, 1):
                assert guest.set_params(pcm, 64 * 8, 16 * 8, stream=stream) == OK
                assert guest.command(PREPARE, stream) == OK
        guest.send(noise(1, 16 * 8), noise(2, 16 * 8))
        guest.offer(16 * 8, 16 * 8)
        with calls:
            for code in (START, STOP, START):
                assert [guest.command(code, stream) for stream in (0, 1)] == [OK, OK]
        guest.run(SECOND // 3000)
        with calls:
            guest.request(CTL_WRITE.to_bytes(4, "little") + bytes(4) + bytes(8))
            for code in (STOP, RELEASE):
                assert [guest.command(code, stream) for stream in (0, 1)] == [OK, OK]
        guest.collect()
    backend.close()
    assert calls.made == []


def test_it_would_be_noticed(tmp_path):
    calls = HostCalls()
    with calls:
        (tmp_path / "file").write_bytes(b"?")
    assert calls.made
