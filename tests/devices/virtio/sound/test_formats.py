"""Every format, rate and number of channels, from the guest's memory to a file and back: bit-exact and on time."""

import numpy as np
import pytest

from devices.audio import Loopback, PcmParams, WavSink
from devices.audio.pcm import FORMATS
from devices.audio.wavfile import WavFile
from tests.devices.audio.wav_reader import Wav, read_wav
from tests.devices.virtio.sound.guest import FORMAT_CODES, OK, RATES, RXQ, SECOND, START, TXQ, Guest, noise


def guest_bytes(wav: Wav, name: str) -> bytes:
    """Undo the conversions that the file format required, by arithmetic."""
    if name == "S8":
        return (np.frombuffer(wav.data, "u1").astype(int) - 128).astype("i1").tobytes()
    if name in {"U16", "U32"}:
        size = wav.bits // 8
        return (np.frombuffer(wav.data, f"<i{size}").astype("i8") + (1 << wav.bits - 1)).astype(f"<u{size}").tobytes()
    return wav.data


def sent_bytes(data: bytes, name: str) -> bytes:
    """Return those of the guest's bytes that are sound: of S24, three in four."""
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


def silence(pcm: PcmParams, frames: int) -> bytes:
    name, size = pcm.format.name, pcm.format.size
    return (1 << 8 * size - 1 if name[0] == "U" else 0).to_bytes(size, "little") * pcm.channels * frames


def duplex(guest: Guest, pcm: PcmParams, messages: list[bytes]) -> bytes:
    """Play messages and simultaneously record as many, STARTed slightly later; return what was recorded."""
    size = len(messages[0])
    for stream in (0, 1):
        guest.open(pcm, buffer=len(messages) * size, period=size, stream=stream)
    guest.send(*messages)
    guest.offer(*[size] * len(messages))
    assert guest.command(START, 0) == OK
    played_from = guest.started
    guest.run(12_345)
    assert guest.command(START, 1) == OK
    guest.run(SECOND)
    data = b""
    times: dict[int, list[int]] = {TXQ: [], RXQ: []}
    for done in guest.done:
        times[RXQ if done.data else TXQ].append(done.time - (guest.started if done.data else played_from))
        data += done.data
        assert (done.status, done.latency) == (OK, 0)
    frames = size // pcm.frame_size
    expected = [-(-frames * n * SECOND // pcm.rate) for n in range(1, len(messages) + 1)]
    assert times == {TXQ: expected, RXQ: expected}
    guest.close(0)
    guest.close(1)
    return data


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", RATES)
def test_playing_and_recording_at_once(tmp_path, name, rate, channels):
    pcm = PcmParams(FORMATS[name], rate, channels)
    there_is = noise(rate, 100 * pcm.frame_size)
    if name == "S24":  # the byte that the file drops extends the sign, as in ALSA
        there_is = (np.frombuffer(there_is, "<i4") << 8 >> 8).astype("<i4").tobytes()
    file = WavFile(tmp_path / "in.wav", pcm)
    file.append(there_is)
    file.close()
    sink = WavSink(tmp_path / "out.wav", source=file.path)
    messages = [noise(i, 37 * pcm.frame_size) for i in range(3)]
    recorded = duplex(Guest(sink), pcm, messages)
    sink.close()
    assert recorded == there_is + silence(pcm, 11)
    assert guest_bytes(read_wav(sink.path), name) == sent_bytes(b"".join(messages), name)


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("frames", [0, 10, 37, 50])
def test_what_is_played_is_recorded_after_a_while(name, channels, frames):
    pcm = PcmParams(FORMATS[name], 48000, channels)
    messages = [noise(i, 37 * pcm.frame_size) for i in range(6)]
    recorded = duplex(Guest(Loopback(frames)), pcm, messages)
    sound = b"".join(messages)
    delay = recorded.index(sound[: pcm.frame_size])
    assert delay % pcm.frame_size == 0
    # The recording began less than a period later, so the delay is at least a period of each.
    assert max(frames, 37) - 37 <= delay // pcm.frame_size <= max(frames, 2 * 37)
    assert recorded == silence(pcm, delay // pcm.frame_size) + sound[: len(sound) - delay]


def test_no_format_is_missing():
    assert set(FORMAT_CODES) == set(FORMATS)
