"""The monitor: lets a person or a script inspect the machine and do what one would do to a real one by hand.

A table of commands; each takes its arguments and returns the text to show. All of it runs on the machine's thread.
"""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devices.audio import WavSink
from devices.errors import UsageError
from devices.virtio.device import DEVICE_NAMES
from devices.virtio.sound.controls import VOLUME_MAX
from emu.counters import Counters
from emu.machine import Machine

if TYPE_CHECKING:
    from devices.virtio.net import NetDevice

__all__ = ["Monitor"]

#: The controls of each direction, by its name in the commands.
_VOLUMES = {"playback": "Master Playback Volume", "capture": "Capture Volume"}
_SWITCHES = {"playback": "Master Playback Switch", "capture": "Capture Switch"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its arguments, its help, and the function that runs it."""

    arguments: str
    help: str
    run: Callable[[list[str]], str]


class _MisuseError(Exception):
    """The arguments do not fit the command."""


class Monitor:
    """The monitor of ``machine``."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._before = machine.counters  # at the last info command
        self._recording: WavSink | None = None
        self._topics: dict[str, Callable[[], Iterator[str]]] = {
            "clock": self._clock,
            "cpu": self._cpu,
            "devices": self._devices,
            "irqs": self._irqs,
            "net": self._net,
            "sound": self._sound,
        }
        self.commands = {
            "info": Command(f"[{'|'.join(self._topics)}]", "show how the machine is doing", self._info),
            "jack": Command("[NAME plug|unplug]", "list the jacks, or plug or unplug one", self._jack),
            "link": Command("[NAME up|down]", "list the network cards, or plug in or pull out a cable", self._link),
            "volume": Command("[playback|capture] [N%]", "show the volume, or set it (playback)", self._volume),
            "mute": Command("[playback|capture]", "mute one direction (playback)", lambda words: self._mute(words, 0)),
            "unmute": Command(
                "[playback|capture]", "unmute one direction (playback)", lambda words: self._mute(words, 1)
            ),
            "pause": Command("", "stop the guest and its time", self._pause),
            "resume": Command("", "let the guest go on", self._resume),
            "wav": Command("start FILE | stop", "record what is played to WAV files", self._wav),
            "save": Command("FILE", "save the machine, for: pyemu boot FILE", self._save),
            "quit": Command("", "switch the machine off", self._quit),
            "help": Command("[COMMAND]", "list the commands", self._help),
        }

    def execute(self, line: str) -> str:
        """Run the command in ``line`` and return the text to show, without a trailing newline.

        Raises UsageError, whose one line says what is wrong.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"{line.strip()}: {str(error).lower()}") from None
        if not words:
            return ""
        command = self.commands.get(words[0])
        if command is None:
            raise UsageError(f"there is no command {words[0]!r}; help lists them")
        try:
            if words[1:] and not command.arguments:
                raise _MisuseError  # noqa: TRY301 - as the commands do
            return command.run(words[1:])
        except _MisuseError:
            raise UsageError(f"{words[0]} takes {command.arguments or 'no arguments'}") from None

    def close(self) -> None:
        """Finish what is being recorded."""
        if self._recording is not None:
            self._machine.audio.taps.remove(self._recording)
            self._recording.close()
            self._recording = None

    # ---------------------------------------------------------------- looking

    def _info(self, words: list[str]) -> str:
        if len(words) > 1 or (words and words[0] not in self._topics):
            raise _MisuseError
        topics = words or list(self._topics)
        text = "\n".join(line for topic in topics for line in self._topics[topic]())
        self._before = self._machine.counters
        return text

    def _clock(self) -> Iterator[str]:
        counters = self._machine.counters
        skew = counters.skew_ns / 1e9
        relation = f"{abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} real time"
        paused = ", paused" if self._machine.paused else ""
        given_up = f"{counters.given_up_ns / 1e9:.3f} s given up"
        yield f"guest time {counters.guest_ns / 1e9:.3f} s, {relation}, {given_up}{paused}"

    def _cpu(self) -> Iterator[str]:
        now = self._machine.counters
        yield (
            f"traps {now.traps}{self._rate(now, lambda counters: counters.traps)}, "
            f"interrupts {sum(now.interrupts)}{self._rate(now, lambda counters: sum(counters.interrupts))}"
        )

    def _rate(self, now: Counters, value: Callable[[Counters], int]) -> str:
        seconds = (now.guest_ns - self._before.guest_ns) / 1e9
        return f" ({(value(now) - value(self._before)) / seconds:.0f}/s)" if seconds > 0 else ""

    def _places(self) -> Iterator[tuple[str, int, int | None]]:
        """Name, address and interrupt of each device; empty virtio slots have none."""
        virtio = iter(self._machine.virtio)
        for placement in self._machine.placements:
            name = placement.device.node_name
            if name == "virtio_mmio":
                device = next(virtio, None)
                if device is None:
                    continue
                name = f"virtio-{DEVICE_NAMES.get(device.device_id, device.device_id)}"
            yield name, placement.base, placement.irq

    def _devices(self) -> Iterator[str]:
        for name, base, irq in self._places():
            yield f"{base:#010x}  {name}{'' if irq is None else f', irq {irq}'}"
        for number, disk in enumerate(self._machine.disks):
            yield f"disk {number}: {disk.size} bytes{', read-only' if disk.read_only else ''}"

    def _irqs(self) -> Iterator[str]:
        claims = self._machine.counters.interrupts
        for name, _, irq in self._places():
            if irq is not None:
                yield f"irq {irq:2}  {claims[irq]:8}  {name}"

    def _sound(self) -> Iterator[str]:
        machine = self._machine
        outputs = machine.audio.streams[0]
        for number, stats in enumerate(machine.sound.stats):
            kind, lost = ("playback", f"{stats.underruns} underruns ({stats.silence_ns / 1e6:.1f} ms of silence)")
            if number >= outputs:
                kind, number = "capture", number - outputs  # noqa: PLW2901
                lost = f"{stats.overruns} overruns ({stats.lost_frames} frames lost)"
            yield (
                f"{kind} {number}: {stats.frames} frames, {stats.messages} periods, {lost}, "
                f"{stats.stalls} stalls, {stats.repeats} repeats, latest {stats.lateness_max_ns / 1e6:.3f} ms"
            )
        yield from machine.audio.summary()

    def _net(self) -> Iterator[str]:
        for number, card in enumerate(self._machine.cards):
            stats = card.stats
            yield f"eth{number}: {card.mac.hex(':')}, {_up_or_down(card)}, {card.backend.describe()}"
            yield (
                f"eth{number}: sent {stats.sent} frames ({stats.sent_bytes} bytes), received {stats.received} "
                f"({stats.received_bytes} bytes), {stats.lost} lost in the card, {card.backend.lost} outside"
            )

    def _link(self, words: list[str]) -> str:
        cards = {f"eth{number}": card for number, card in enumerate(self._machine.cards)}
        if not words:
            return "\n".join(f"{name}: {_up_or_down(card)}" for name, card in cards.items())
        if len(words) != 2 or words[1] not in {"up", "down"}:
            raise _MisuseError
        if words[0] not in cards:
            raise UsageError(f"there is no network card {words[0]!r}: {', '.join(cards) or 'give the machine a --net'}")
        cards[words[0]].link = words[1] == "up"
        return ""

    # ---------------------------------------------------------------- the sound card

    def _jack(self, words: list[str]) -> str:
        jacks = self._machine.sound.jacks
        if not words:
            return "\n".join(f"{jack.name}: {'plugged' if jack.connected else 'unplugged'}" for jack in jacks)
        if len(words) != 2 or words[1] not in {"plug", "unplug"}:
            raise _MisuseError
        jacks.plug(words[0], connected=words[1] == "plug")
        return ""

    def _volume(self, words: list[str]) -> str:
        controls = self._machine.sound.controls
        if not words:
            return "\n".join(
                f"{direction}: {'/'.join(f'{value}%' for value in controls[_VOLUMES[direction]].values)}"
                f"{'' if all(controls[_SWITCHES[direction]].values) else ', muted'}"
                for direction in _VOLUMES
            )
        direction = words.pop(0) if words[0] in _VOLUMES else "playback"
        number = words[0].removesuffix("%") if len(words) == 1 else ""
        if not (number.isascii() and number.isdigit() and len(number) <= 3 and int(number) <= VOLUME_MAX):
            raise _MisuseError
        controls.set(_VOLUMES[direction], int(number))
        return ""

    def _mute(self, words: list[str], value: int) -> str:
        if len(words) > 1 or (words and words[0] not in _SWITCHES):
            raise _MisuseError
        self._machine.sound.controls.set(_SWITCHES[words[0] if words else "playback"], value)
        return ""

    def _wav(self, words: list[str]) -> str:
        if words == ["stop"]:
            if self._recording is None:
                raise UsageError("nothing is being recorded")
            recording = self._recording
            self.close()
            return "\n".join(recording.summary())
        if len(words) != 2 or words[0] != "start":
            raise _MisuseError
        if self._recording is not None:
            raise UsageError(f"{self._recording.path} is already being recorded; stop it with: wav stop")
        self._recording = WavSink(words[1])
        self._machine.audio.taps.append(self._recording)
        return ""

    # ---------------------------------------------------------------- the machine

    def _pause(self, _words: list[str]) -> str:
        self._machine.pause()
        return ""

    def _resume(self, _words: list[str]) -> str:
        self._machine.resume()
        return ""

    def _save(self, words: list[str]) -> str:
        if len(words) != 1:
            raise _MisuseError
        self._machine.save(words[0])
        return ""

    def _quit(self, _words: list[str]) -> str:
        self._machine.switch_off()
        return ""

    def _help(self, words: list[str]) -> str:
        if len(words) > 1 or (words and words[0] not in self.commands):
            raise _MisuseError
        synopses = {name: f"{name} {self.commands[name].arguments}".rstrip() for name in words or self.commands}
        width = max(map(len, synopses.values()))
        return "\n".join(f"{synopsis:{width}}  {self.commands[name].help}" for name, synopsis in synopses.items())


def _up_or_down(card: "NetDevice") -> str:
    return "up" if card.link else "down"
