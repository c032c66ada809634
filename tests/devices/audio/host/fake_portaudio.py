"""A PortAudio whose devices run on a clock the test moves: off by some ppm, standing still, wild, or gone."""

from types import SimpleNamespace

import numpy as np


class PortAudioError(Exception):
    pass


class CallbackAbort(Exception):  # noqa: N818 - as sounddevice calls it
    pass


class FakePortAudio:
    """The part of the module sounddevice that devices/audio uses. ``run_until`` calls the callbacks due by then."""

    PortAudioError = PortAudioError
    CallbackAbort = CallbackAbort

    def __init__(self, *, ppm=0.0, block=240, delay=0.020, cards=(("default", 2, 2),), only_rate=None, api="ALSA"):
        self.now = 1000.0
        self.ppm = ppm
        self.block = block
        self.delay = delay
        self.cards = list(cards)
        self.only_rate = only_rate
        self.api = api
        self.broken = False  # no device opens, and those that are open stand still
        self.speed = 1.0
        self.streams = []
        self.initialized = 1
        self.begun = 0  # times PortAudio was reinitialized
        self.microphone = lambda first, count: np.zeros((count, 2), np.float32)
        self.default = SimpleNamespace(device=[0, 0])

    # The module.

    def query_devices(self):
        return [
            {"name": name, "hostapi": 0, "max_input_channels": inputs, "max_output_channels": outputs,
             "default_samplerate": float(self.only_rate or 44100)}
            for name, inputs, outputs in self.cards
        ]  # fmt: skip

    def query_hostapis(self, index):
        return {"name": self.api}

    def check_output_settings(self, *, device, channels, dtype, samplerate):
        if self.broken or (self.only_rate and samplerate != self.only_rate):
            raise PortAudioError("Invalid sample rate")

    check_input_settings = check_output_settings

    def RawOutputStream(self, **options):  # noqa: N802
        return FakeStream(self, "output", **options)

    def RawInputStream(self, **options):  # noqa: N802
        return FakeStream(self, "input", **options)

    def _terminate(self):
        assert not self.streams, "PortAudio ends all streams"
        self.initialized -= 1

    def _initialize(self):
        self.initialized += 1
        self.begun += 1

    # The test.

    def run_until(self, when):
        """Let time pass."""
        while self.streams and (stream := min(self.streams, key=lambda each: each.due)).due <= when:
            self.now = max(self.now, stream.due)
            stream.call()
        self.now = max(self.now, when)

    def heard(self):
        """Everything played, by all output streams, an array (frame, channel)."""
        return np.concatenate(self.played) if self.played else np.zeros((0, 2), np.float32)


class FakeStream:
    latency = 0.025

    def __init__(self, portaudio, kind, *, device, samplerate, channels, dtype, latency, callback):
        if portaudio.broken:
            raise PortAudioError("Device unavailable")
        assert dtype == "float32"
        self._portaudio = portaudio
        self._kind = kind
        self._rate = samplerate
        self._channels = channels
        self._callback = callback
        self._frames = 0
        self.active = False

    @property
    def time(self):
        return self._portaudio.now + 5e8  # a clock of its own

    @property
    def due(self):
        if self._portaudio.broken or not self.active:
            return float("inf")
        return self.next

    def start(self):
        self.active = True
        self.next = self._portaudio.now
        self._portaudio.streams.append(self)
        if self._kind == "output":
            self._portaudio.played = []

    def call(self):
        portaudio = self._portaudio
        count = portaudio.block
        data = np.zeros((count, self._channels), np.float32)
        # When the first frame is heard or was recorded, exact as on a good card; the call itself jitters.
        times = SimpleNamespace(
            currentTime=self.time,
            outputBufferDacTime=self.next + portaudio.delay + 5e8,
            inputBufferAdcTime=self.next - portaudio.delay + 5e8,
        )
        if self._kind == "input":
            data[:] = portaudio.microphone(self._frames, count)[:, : self._channels]
        else:
            data[:] = np.nan  # unfilled frames show up
        try:
            self._callback(memoryview(data).cast("B"), count, times, None)
        except CallbackAbort:
            self.active = False
        if self._kind == "output":
            portaudio.played.append(data)
        self._frames += count
        self.next += count / (self._rate * (1 + portaudio.ppm * 1e-6) * portaudio.speed)

    def abort(self, ignore_errors=True):
        self.active = False

    def close(self, ignore_errors=True):
        self.active = False
        if self in self._portaudio.streams:
            self._portaudio.streams.remove(self)
