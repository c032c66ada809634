"""The monitor's commands, and the prompt at which a person types them."""

import re
from collections.abc import Callable, Iterator

import pytest

from devices.audio.pcm import FORMATS, PcmParams
from devices.power import PowerAction
from emu import Machine, UsageError, WavSink, Wire
from emu.terminal.prompt import Prompt
from tests.emu.tiny import WAIT, write_image


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1024))
    with Machine(write_image(tmp_path / "Image", WAIT), clock="warp", disk=f"{disk},readonly") as machine:
        yield machine


def test_an_empty_line_does_nothing(machine):
    assert machine.monitor("  ") == ""


def test_help_has_a_line_for_each_command(machine):
    lines = machine.monitor("help").splitlines()
    assert [line.split()[0] for line in lines] == [
        "info", "jack", "link", "volume", "mute", "unmute", "pause", "resume", "wav", "save", "quit", "help",
    ]  # fmt: skip
    assert machine.monitor("help quit") == "quit  switch the machine off"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("reboot", "there is no command 'reboot'; help lists them"),
        ("'", "': no closing quotation"),
        ("info all", "info takes [clock|cpu|devices|irqs|net|sound]"),
        ("jack mic", "jack takes [NAME plug|unplug]"),
        ("jack mic remove", "jack takes [NAME plug|unplug]"),
        ("jack cd plug", "there is no jack 'cd': line, mic"),
        ("link eth0", "link takes [NAME up|down]"),
        ("link eth0 off", "link takes [NAME up|down]"),
        ("link eth0 down", "there is no network card 'eth0': give the machine a --net"),
        ("volume 101%", "volume takes [playback|capture] [N%]"),
        ("volume -1", "volume takes [playback|capture] [N%]"),
        ("volume playback", "volume takes [playback|capture] [N%]"),
        ("mute all", "mute takes [playback|capture]"),
        ("unmute all", "unmute takes [playback|capture]"),
        ("pause now", "pause takes no arguments"),
        ("wav", "wav takes start FILE | stop"),
        ("wav stop", "nothing is being recorded"),
        ("wav start /nonexistent/x.wav", "cannot write sound to /nonexistent/x.wav: No such file or directory"),
        ("save", "save takes FILE"),
        ("save a b", "save takes FILE"),
        ("save /nonexistent/x", "/nonexistent/x cannot be saved: No such file or directory"),
        ("save /proc/version", "/proc/version is not a snapshot; it is not replaced by one"),
        ("help me", "help takes [COMMAND]"),
    ],
)
def test_errors_are_one_line_that_says_what_is_right(machine, line, message):
    with pytest.raises(UsageError) as error:
        machine.monitor(line)
    assert str(error.value) == message


def test_info_covers_everything(machine):
    text = machine.monitor("info")
    for topic in ("clock", "cpu", "devices", "irqs", "sound"):
        lines = machine.monitor(f"info {topic}").splitlines()
        assert lines
        assert all(re.sub(r"\d+", "", line) in re.sub(r"\d+", "", text) for line in lines if topic in {"irqs", "sound"})


def test_info_devices_is_the_board(machine):
    lines = machine.monitor("info devices").splitlines()
    assert "0x10000000  serial, irq 10" in lines
    assert "0x10001000  virtio-blk, irq 1" in lines
    assert lines[-1] == "disk 0: 1024 bytes, read-only"


def test_info_sound_shows_both_directions(machine):
    playback, capture = machine.monitor("info sound").splitlines()
    assert playback.startswith("playback 0: 0 frames, 0 periods, 0 underruns")
    assert capture.startswith("capture 0: 0 frames, 0 periods, 0 overruns")


def test_rates_are_those_since_the_last_time(machine):
    assert machine.monitor("info cpu").startswith("traps 0")
    machine.hart._traps = 500
    machine.clock.pause()  # so that it is exactly a second
    machine.monitor("info cpu")
    machine.hart._traps = 1500
    frozen = machine.clock.now()
    machine.clock.now = lambda: frozen + 2_000_000_000
    assert machine.monitor("info cpu").startswith("traps 1500 (500/s)")


def test_network_cards(tmp_path):
    nets = [Wire(), Wire(mac=bytes(5) + b"x")]
    with Machine(write_image(tmp_path / "Image", WAIT), clock="warp", nets=nets) as machine:
        assert machine.monitor("link") == "eth0: up\neth1: up"
        machine.monitor("link eth1 down")
        assert machine.monitor("link") == "eth0: up\neth1: down"
        assert not machine.cards[1].link
        with pytest.raises(UsageError, match=r"there is no network card 'eth2': eth0, eth1$"):
            machine.monitor("link eth2 up")
        assert machine.monitor("info net").splitlines()[::2] == [
            "eth0: 52:54:00:70:79:00, up, a wire to Python", "eth1: 00:00:00:00:00:78, down, a wire to Python",
        ]  # fmt: skip
        assert "sent 0 frames (0 bytes), received 0 (0 bytes), 0 lost" in machine.monitor("info net")
        assert "virtio-net" in machine.monitor("info devices")


def test_jacks(machine):
    assert machine.monitor("jack") == "line: plugged\nmic: plugged"
    machine.monitor("jack mic unplug")
    assert machine.monitor("jack") == "line: plugged\nmic: unplugged"
    machine.monitor("jack mic plug")
    assert machine.sound.jacks["mic"].connected


def test_volume_and_mute(machine):
    for line in ("volume 40%", "volume capture 7", "mute capture"):
        assert machine.monitor(line) == ""
    assert machine.monitor("volume") == "playback: 40%/40%\ncapture: 7%/7%, muted"
    machine.monitor("mute")
    machine.monitor("unmute capture")
    assert machine.monitor("volume") == "playback: 40%/40%, muted\ncapture: 7%/7%"


def test_pause_and_resume(machine):
    machine.monitor("pause")
    machine.monitor("pause")
    assert machine.monitor("info clock").endswith(", paused")
    before = machine.clock.now()
    machine.run_until(lambda: False, timeout=0.02)
    assert machine.clock.now() == before
    machine.monitor("resume")
    machine.run_for(0.001)
    assert machine.clock.now() > before


def test_a_machine_is_saved_even_if_it_is_paused(machine, tmp_path):
    machine.run_for(0.01)
    machine.monitor("pause")
    now = machine.clock.now()
    assert machine.monitor(f"save '{tmp_path}/a b'") == ""
    assert machine.paused
    with Machine(tmp_path / "a b", clock="warp") as other:
        assert (other.paused, other.clock.now()) == (False, now)
        other.run_for(0.01)
        assert other.clock.now() > now


def test_quit_switches_the_machine_off(machine):
    machine.monitor("quit")
    assert machine.run().action is PowerAction.OFF


def test_wav_records_what_is_played_from_start_to_stop(machine, tmp_path):
    params = PcmParams(FORMATS["S16"], 8000, 1)
    port = machine.audio.open_playback(0, params)
    port.write(b"\1\0")
    machine.monitor(f"wav start '{tmp_path}/a tap.wav'")
    port.write(b"\2\0\3\0")
    with pytest.raises(UsageError, match="is already being recorded"):
        machine.monitor("wav start other.wav")
    assert "a tap.wav: 2 frames" in machine.monitor("wav stop")
    port.write(b"\4\0")
    assert (tmp_path / "a tap.wav").read_bytes().endswith(b"data\4\0\0\0\2\0\3\0")
    assert machine.audio.played == 4


def test_a_recording_ends_with_the_machine(machine, tmp_path):
    machine.monitor(f"wav start {tmp_path}/tap.wav")
    machine.close()
    WavSink(tmp_path / "tap.wav").close()  # nobody holds its lock


class Terminal:
    """A prompt, what it shows, and the lines it passes on."""

    def __init__(self, enter: Callable[[str], None] | None = None) -> None:
        self.shown = ""
        self.lines: list[str] = []
        self.left = 0
        self.prompt = Prompt("> ", self.show, enter or self.lines.append, self.leave)

    def show(self, text: str) -> None:
        self.shown += text

    def leave(self) -> None:
        self.left += 1
        self.prompt.close()


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (b"info\rjack\r", ["info", "jack"]),
        (b"in\x7f\x08xy\r", ["xy"]),
        (b"\x7fa\r", ["a"]),
        (b"nonsense\x15info\r", ["info"]),
        (b"nonsense\x03info\r", ["info"]),
        ("wav é\x7fa\r".encode(), ["wav a"]),
        (b"\xff\r", ["\ufffd"]),
        (b"x" * 5000 + b"\r", ["x" * 1000]),
        (b"\r\r", ["", ""]),
    ],
)
@pytest.mark.parametrize("piece", [5000, 1], ids=["at once", "key by key"])
def test_line_editing(keys, lines, piece):
    terminal = Terminal()
    for start in range(0, len(keys), piece):
        terminal.prompt(keys[start : start + piece])
    assert terminal.lines == lines


def test_cursor_keys_do_nothing():
    terminal = Terminal()
    terminal.prompt(b"\x1b[A\x1bOBi\x1b[3~nfo\r")
    assert terminal.lines == ["info"]


def test_what_is_typed_is_shown_behind_the_prompt():
    terminal = Terminal()
    terminal.prompt(b"h")
    terminal.prompt(b"i\r")
    assert terminal.shown == "> \r\x1b[K> h\r\x1b[K> hi\n> "


def test_c_d_leaves_an_empty_line_only():
    terminal = Terminal()
    terminal.prompt(b"x\x04")
    assert not terminal.left
    terminal.prompt(b"\x7f\x04ignored\r")
    assert terminal.left == 1
    assert terminal.lines == []
    assert terminal.shown.endswith("\n")


def test_a_line_that_closes_the_prompt_is_the_last():
    terminal = Terminal(lambda line: terminal.leave())
    terminal.prompt(b"quit\rmore\r")
    assert terminal.left == 1
    assert not terminal.shown.endswith("> ")
