"""Backend ``host``: the guest's sound on the host's sound devices, through PortAudio.

As with every backend, the machine's clock paces the guest, and no host device makes it wait. The guest never notices
what a device does: until a failed device is back, the guest is not heard, or records silence.

Besides the machine's thread there are three, none of which waits for another:

    PortAudio's   asks for buffers; moves frames between them and rings (play.py, record.py)
    feeder        converts and resamples what the guest plays and records
    keeper        opens and closes devices, which is slow, and monitors them

The output is opened when the machine is switched on and plays silence while the guest does not play, because opening
it may delay a sound. If nobody asked for the host's sound (``linger``), it is opened for a sound, and closed some time
after the last one. The input is opened when the guest first records: the host may then ask its user for permission.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from devices.audio.base import AudioBackend, Capture, Playback
from devices.audio.host.card import OpenCard, find_card, load_portaudio
from devices.audio.host.play import HostStats, OutputVoice, Tick
from devices.audio.host.record import InputVoice
from devices.audio.host.ring import Frames
from devices.audio.latency import LATENCY
from devices.audio.pcm import PcmParams
from devices.errors import UsageError

__all__ = ["HostAudio"]

logger = logging.getLogger(__name__)

#: The share of the latency that the device may use for its buffers.
_DEVICE_SHARE = 0.5
_FEED_EVERY = 0.005  # while the guest records
_LOOK_EVERY = 0.25
_RETRY_EVERY = 0.5
_RETRY_WILD = 1.0
_LONGEST_END = 2.0
_OUTPUT, _INPUT = "output", "input"
_MOST_WARNINGS = 6


class HostAudio(AudioBackend):
    """Plays on and records from the host's devices called ``name`` ("": the defaults), ``latency`` seconds late.

    The output is closed ``linger`` seconds after the guest's last sound; None: only with the machine.
    Raises UsageError if there is no such output, MissingPackageError without PortAudio.
    """

    def __init__(
        self,
        name: str = "",
        *,
        latency: float = LATENCY,
        streams: tuple[int, int] = (1, 1),
        linger: float | None = None,
        portaudio: Any = None,
        monotonic: Callable[[], float] = time.monotonic,
        threads: bool = True,
    ) -> None:
        self.name = name
        self.latency = latency
        self.streams = streams
        self.stats = HostStats()
        self._linger = linger
        self._played_at = -math.inf
        self._portaudio = load_portaudio() if portaudio is None else portaudio
        self._monotonic = monotonic
        self._specs = {_OUTPUT: find_card(self._portaudio, name, _OUTPUT)}
        with contextlib.suppress(UsageError):  # a missing microphone does not matter until the guest records
            self._specs[_INPUT] = find_card(self._portaudio, name, _INPUT)
        self._cards: dict[str, OpenCard] = {}
        self._outputs: tuple[OutputVoice, ...] = ()  # replaced, never changed: PortAudio's thread iterates over it
        self._inputs: tuple[InputVoice, ...] = ()
        self._tick: Tick | None = None  # the output's last callback
        self._gains = {_OUTPUT: np.ones((2, 1), np.float32), _INPUT: np.ones((2, 1), np.float32)}
        self._learned = 0.0  # drift
        self._work = threading.Event()
        self._look = threading.Event()
        self._voices = threading.Lock()  # held while _outputs or _inputs is replaced; nothing blocks under it
        self._closing = False
        self._lost = False
        self._retry_at = 0.0
        self._warnings = 0
        self._silent: dict[str, str] = {}  # what is not heard or recorded, and why
        self._threads = [
            threading.Thread(target=target, name=f"pyemu-sound-{target.__name__[1:]}", daemon=True)
            for target in ((self._feeder, self._keeper) if threads else ())
        ]
        for thread in self._threads:
            thread.start()

    # The machine's thread.

    @property
    def played(self) -> int:
        """Frames the guest has played, heard or not."""
        return self.stats.played

    def open_playback(self, stream: int, params: PcmParams) -> Playback:  # noqa: ARG002 - all are mixed
        """Play to the output device, mixed with the other streams."""
        spec = self._specs[_OUTPUT]
        voice = OutputVoice(
            params,
            spec.rate,
            spec.channels,
            latency=self.latency,
            stats=self.stats,
            learned=self._learned,
            wake=self._work.set,
            monotonic=self._monotonic,
        )
        if self._tick is not None:
            voice.attach(self._tick)
        with self._voices:
            self._outputs = (*self._outputs, voice)
        self._look.set()
        return voice

    def open_capture(self, stream: int, params: PcmParams) -> Capture:  # noqa: ARG002 - each has the same
        """Record from the input device, which is opened now; silence while there is none."""
        spec = self._specs.get(_INPUT)  # none before the first recording
        rate, channels = (spec.rate, spec.channels) if spec is not None else (48000, 2)
        voice = InputVoice(params, rate, channels, latency=self.latency, stats=self.stats, monotonic=self._monotonic)
        with self._voices:
            self._inputs = (*self._inputs, voice)
        self._look.set()
        self._work.set()
        return voice

    def set_gains(self, playback: Sequence[float], capture: Sequence[float]) -> None:
        """Set the factors for left and right samples (1.0: unchanged)."""
        self._gains = {kind: np.array(gains, np.float32).reshape(2, 1)
                       for kind, gains in ((_OUTPUT, playback), (_INPUT, capture))}  # fmt: skip

    def summary(self) -> list[str]:
        """Say what went wrong with the sound, if anything did."""
        stats = self.stats
        faults = [
            text
            for count, text in (
                (stats.gaps, _many(stats.gaps, "gap")),
                (stats.late, f"{_times(stats.late)} late for the device"),
                (stats.skips, _many(stats.skips, "skip")),
                (stats.vanished, f"the device was gone {_times(stats.vanished)}"),
                (stats.wild, f"the device ran wild {_times(stats.wild)}"),
                (stats.errors, f"{_many(stats.errors, 'error')} in pyemu's callback"),
            )
            if count
        ]
        return [f"host sound: {', '.join(faults)}"] if faults else []

    def close(self) -> None:
        """Close the devices; one that does not close within two seconds is abandoned."""
        self._closing = True
        self._work.set()
        self._look.set()
        for thread in self._threads:
            thread.join(_LONGEST_END)
        if not self._threads:
            self._close_cards()

    # The feeder.

    def _feeder(self) -> None:
        while not self._closing:
            if self._inputs or any(voice.backlog for voice in self._outputs):
                self._work.wait(_FEED_EVERY)
            else:
                self._work.wait(_LOOK_EVERY if self._outputs else None)
            self._work.clear()
            self.feed()

    def feed(self) -> None:
        """Do all pending work for all streams."""
        for voice in self._outputs:
            voice.feed(self._gains[_OUTPUT][: voice.channels])
            self._learned = voice.drift.offset
        for recording in self._inputs:
            recording.feed(self._gains[_INPUT][: recording.channels])
        if any(voice.is_over for voice in self._outputs) or any(voice.is_over for voice in self._inputs):
            with self._voices:
                self._outputs = tuple(voice for voice in self._outputs if not voice.is_over)
                self._inputs = tuple(voice for voice in self._inputs if not voice.is_over)

    # PortAudio's threads.

    # A device may come back as a different one, which streams opened earlier do not fit.

    def _play(self, out: Frames, tick: Tick) -> None:
        self._tick = tick
        for voice in self._outputs:
            if (voice.rate, voice.channels) == self._specs[_OUTPUT][2:4]:
                voice.mix(out, tick)

    def _record(self, data: Frames, tick: Tick) -> None:
        for voice in self._inputs:
            if (voice.rate, voice.channels) == self._specs[_INPUT][2:4]:
                voice.record(data, tick)

    # The keeper.

    def _keeper(self) -> None:
        while not self._closing:
            self.look_after()
            self._look.wait(_LOOK_EVERY if self._cards or self._wanted() else None)
            self._look.clear()
        self._close_cards()

    def look_after(self) -> None:
        """Open what should be open, and close what is broken."""
        faults = [fault for card in self._cards.values() if (fault := card.fault()) is not None]
        if faults:
            self._lose(faults)
        for kind, card in self._cards.items():
            if kind in self._silent and card.is_proven:
                del self._silent[kind]
                self._warn(f"sound {kind} is back: {card.spec.name}")
        now = self._monotonic()
        wanted = self._wanted()
        for kind in self._cards.keys() - wanted:
            self._cards.pop(kind).close()
            self._detach(kind)
        if now < self._retry_at or not wanted - self._cards.keys():
            return
        self._retry_at = now + _RETRY_EVERY
        if self._lost and not self._cards:  # only a restarted PortAudio sees what has come back
            for begin_anew in (self._portaudio._terminate, self._portaudio._initialize):  # noqa: SLF001 - no other names
                with contextlib.suppress(self._portaudio.PortAudioError):
                    begin_anew()
        for kind in sorted(wanted - self._cards.keys()):
            self._open(kind)
        self._lost = not self._cards

    def _wanted(self) -> set[str]:
        if self._outputs:
            self._played_at = self._monotonic()
        lingers = self._linger is None or self._monotonic() - self._played_at < self._linger
        return ({_OUTPUT} if lingers else set()) | ({_INPUT} if self._inputs else set())

    def _open(self, kind: str) -> None:
        try:
            spec = find_card(self._portaudio, self.name, kind)
            self._specs[kind] = spec
            transfer = self._play if kind == _OUTPUT else self._record
            share = self.latency * _DEVICE_SHARE
            self._cards[kind] = OpenCard(
                self._portaudio, spec, transfer, latency=share, stats=self.stats, monotonic=self._monotonic
            )
        except (UsageError, ValueError, self._portaudio.PortAudioError) as error:
            self._say(kind, f"no sound {kind}: {error}; the guest carries on without until there is one")
        else:
            self.stats.opened += 1

    def _lose(self, faults: Sequence[str]) -> None:
        names = ", ".join(card.spec.name for card in self._cards.values())
        self.stats.vanished += faults.count("gone")
        self.stats.wild += faults.count("wild")
        self._close_cards()
        self._detach(_OUTPUT)
        self._detach(_INPUT)
        self._lost = True
        what = "does not keep time" if "wild" in faults else "is gone"
        self._say(_OUTPUT, f"the sound device {names} {what}; the guest carries on without until it is back")
        self._retry_at = self._monotonic() + (_RETRY_WILD if "wild" in faults else 0.0)

    def _detach(self, kind: str) -> None:
        if kind == _OUTPUT:
            self._tick = None
        for voice in self._outputs if kind == _OUTPUT else self._inputs:
            voice.detach()

    def _say(self, kind: str, text: str) -> None:
        """Warn, but only once until there is sound again."""
        if kind not in self._silent:
            self._silent[kind] = text
            self._warn(text)

    def _warn(self, text: str) -> None:
        self._warnings += 1
        if self._warnings <= _MOST_WARNINGS:
            logger.warning("%s", text)

    def _close_cards(self) -> None:
        while self._cards:
            self._cards.popitem()[1].close()


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
