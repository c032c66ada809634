"""Every format, rate and number of channels, from the guest's memory to the file: bit-exact and on time."""

import numpy as np
import pytest

from devices.audio import PcmParams, WavSink
from devices.audio.pcm import FORMATS
from tests.devices.audio.wav_reader import Wav, read_wav
from tests.devices.virtio.sound.guest import FORMAT_CODES, OK, RATES, SECOND, START, Guest, noise


def guest_bytes(wav: Wav, name: str) -> bytes:
    """Undo what the file format demanded, by arithmetic."""
    if name == "S8":
        return (np.frombuffer(wav.data, "u1").astype(int) - 128).astype("i1").tobytes()
    if name in {"U16", "U32"}:
        size = wav.bits // 8
        return (np.frombuffer(wav.data, f"<i{size}").astype("i8") + (1 << wav.bits - 1)).astype(f"<u{size}").tobytes()
    return wav.data


def sent_bytes(data: bytes, name: str) -> bytes:
    """What of the guest's bytes is sound: of S24, three in four."""
    return np.frombuffer(data, "u1").reshape(-1, 4)[:, :3].tobytes() if name == "S24" else data


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", RATES)
def test_every_byte_and_every_deadline(tmp_path, name, rate, channels):
    sink = WavSink(tmp_path / "out.wav")
    guest = Guest(sink)
    pcm = PcmParams(FORMATS[name], rate, channels)
    frames = [37, 37, 37, 5]
    messages = [noise(i + rate, n * pcm.frame_size) for i, n in enumerate(frames)]
    guest.open(pcm, buffer=4 * 37 * pcm.frame_size, period=37 * pcm.frame_size)
    guest.send(*messages)
    assert guest.command(START) == OK
    guest.run(SECOND)
    guest.close()
    sink.close()

    assert [done.time for done in guest.done] == [guest.end_of(n) for n in (37, 74, 111, 116)]
    wav = read_wav(sink.path)
    assert (wav.rate, wav.channels, wav.frames) == (rate, channels, 116)
    assert wav.is_float == name.startswith("FLOAT")
    assert guest_bytes(wav, name) == sent_bytes(b"".join(messages), name)


def test_no_format_is_missing():
    assert set(FORMAT_CODES) == set(FORMATS)
