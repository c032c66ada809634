"""Recordings that are damaged, or made to do harm: one line says so, before any of it has an effect."""

import base64
import json
import os
import random
import zlib
from pathlib import Path

import pytest

from devices.errors import MachineError, PyemuError, UsageError
from emu import Machine
from emu.recording import Reader, Replayer, Writer
from emu.recording.file import LONGEST_TEXT, Entry
from tests.emu import tiny

HEADER = {
    "pyemu recording": 2, "version": "0.1.0", "seed": 0, "memory": 1 << 28, "append": "", "ps_per_block": 4000,
    "streams": [1, 1], "kernel": "0" * 64, "initrd": None, "bios": None, "snapshot": None,
    "disks": [[512, False, "0" * 64]],
}  # fmt: skip
END = [9, 9, "end", [0, "0" * 64, "off"]]


def write(path: Path, *lines: object) -> Path:
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return path


def read(path: Path) -> list[object]:
    with Reader(path) as reader:
        lines = []
        while reader.ahead is not None:
            lines.append(reader.take())
        return lines


def test_every_kind_of_line(tmp_path):
    entries = [
        [0, 0, "type", ["\x00\xff"]], [1, 5, "hold", [True]], [1, 5, "resize", [80, 24]],
        [2, 5, "jack", ["mic", False]], [2, 5, "control", ["x", 1, 2]], [2, 5, "off", []], [2, 5, "at", [10]],
        [2, 5, "cancel", [0]], [2, 5, "sound", [0, 4, "AAAA"]],
    ]  # fmt: skip
    path = write(tmp_path / "run", HEADER, *entries, END, HEADER, [0, 0, "cut", []])
    assert read(path) == [HEADER, *(tuple(entry) for entry in entries), tuple(END), HEADER, (0, 0, "cut", [])]


@pytest.mark.parametrize(
    "lines",
    [
        [b"hello\n"],
        [b"\0" * (3 << 20)],
        [b"x" * (3 << 20)],
        [b"[" * 100_000 + b"\n"],
        [b"9" * 10_000 + b"\n"],
        [b"\xff\xfe\n"],
        [[0, 0, "off", []]],
        [[]],
        [None],
        [{}],
        [{"pyemu recording": True}],
        [{"pyemu recording": "1"}],
        [HEADER | {"more": 1}],
        [{name: value for name, value in HEADER.items() if name != "seed"}],
        *([HEADER | {name: value}] for name, value in (
            ("version", 1), ("seed", 1.5), ("seed", None), ("memory", -1), ("memory", 1 << 70), ("append", None),
            ("ps_per_block", "4000"), ("streams", [1]), ("streams", 2), ("kernel", "0"), ("kernel", 0),
            ("disks", {}), ("disks", [[512, 0, "0" * 64]]), ("disks", [[512, False]]), ("disks", [512]),
        )),
    ],
)  # fmt: skip
def test_what_is_no_recording(tmp_path, lines):
    with pytest.raises(UsageError, match="is not a recording of pyemu's"):
        Reader(write(tmp_path / "run", *lines))


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"{\n", b"[" * 100_000 + b"\n", b"[NaN, 0, \"off\", []]\n", HEADER, {}, [], [0, 0, "off"],
        [0, 0, "off", [], 0],
        [0, 0, "of", []], [0, 0, [], []], [0, 0, {}, []], [0, 0, "off", {}], [0, 0, "off", [1]], [0, 0, "", []],
        [-1, 0, "off", []], [0, -1, "off", []], [0.0, 0, "off", []], [True, 0, "off", []], [1 << 62, 0, "off", []],
        [0, 0, "type", []], [0, 0, "type", [1]], [0, 0, "type", ["\u0100"]], [0, 0, "type", ["x" * (LONGEST_TEXT + 1)]],
        [0, 0, "hold", [1]], [0, 0, "resize", [80]], [0, 0, "resize", [-1, 2]], [0, 0, "jack", ["mic", 1]],
        [0, 0, "control", ["x", 1]], [0, 0, "control", ["x", "1", 2]], [0, 0, "at", [1 << 62]], [0, 0, "cancel", [-1]],
        [0, 0, "sound", [0, 0, ""]], [0, 0, "sound", [0, 1 << 40, ""]], [0, 0, "sound", [0, 4, 4]],
        [0, 0, "end", []], [0, 0, "end", [0, "0", "off"]], [0, 0, "cut", [0]],
        b"[0, 0, \"type\", [\"" + b"x" * (2 << 20) + b"\"]]\n",
    ],
)  # fmt: skip
def test_a_line_that_makes_no_sense(tmp_path, line):
    with pytest.raises(UsageError, match=r"is damaged: line 2 (makes no sense|is too long)"):
        Reader(write(tmp_path / "run", HEADER, line, END))


@pytest.mark.parametrize(
    "lines",
    [
        ([1, 5, "off", []], [0, 5, "off", []]),
        ([1, 5, "off", []], [1, 4, "off", []]),
        (END, [9, 9, "off", []]),
        (END, END),
        ([1, 5, "off", []], HEADER),
    ],
)
def test_lines_in_an_impossible_order(tmp_path, lines):
    with pytest.raises(UsageError, match="is damaged: line 3 makes no sense"):
        Reader(write(tmp_path / "run", HEADER, *lines))


def test_an_empty_file_and_what_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="is empty"):
        Reader(write(tmp_path / "run"))
    with pytest.raises(UsageError, match="is empty"):
        Reader(write(tmp_path / "run", b'{"pyemu recording":1'))
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(UsageError, match="is not a regular file"):
            Reader(name)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        Reader(tmp_path / "nothing")
    with pytest.raises(UsageError, match="cannot be read"):
        Reader("a\0b")


@pytest.mark.parametrize(
    ("size", "data"),
    [(4, "AAAA"), (4, "????"), (4, "\u1234"), (4, base64.b64encode(zlib.compress(b"12345")).decode()),
     (4, base64.b64encode(zlib.compress(bytes(100_000_000))).decode())],
)  # fmt: skip
def test_sound_that_cannot_be_unpacked(tmp_path, size, data):
    """Nor is a bomb unpacked, beyond the size that is stated."""
    with Reader(write(tmp_path / "run", HEADER, [0, 0, "sound", [0, size, data]])) as reader:
        reader.take()
        replayer = Replayer(reader)
        replayer._compare_time = lambda _entry: None
        with pytest.raises(UsageError, match="is damaged: a recorded sound"):
            replayer.take_sound(0, 4)


def test_names_that_the_machine_does_not_have(kernel, tmp_path):
    image, path = kernel(tiny.WAIT), tmp_path / "run"
    Machine(image, clock="warp", record=path).close()
    good = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in ([0, 0, "jack", ["nose", True]], [0, 0, "control", ["x", 1, 2]]):
        write(path, good[0], entry, *good[1:])
        with pytest.raises(UsageError, match="is damaged: there is no"):
            Machine(image, clock="warp", replay=path)


def test_random_damage_is_survived(kernel, tmp_path):
    """Whatever bytes are changed: it is refused, or it differs, or it made no difference."""
    image, path = kernel(tiny.ECHO), tmp_path / "run"
    with Machine(image, clock="warp", record=path) as machine:
        machine.run_for(0.00001)
        machine.console.send("abc")
        machine.run_for(0.00001)
        machine.monitor("jack mic unplug")
        machine.console.send("\4")
        machine.run()
    good, choose = path.read_bytes(), random.Random(1)
    header = good.index(b"\n") + 1
    outcomes, messages = set(), []
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(choose.choice((1, 1, 2, 5))):
            place = choose.randrange(header, len(damaged))
            if choose.random() < 0.5:
                damaged[place] = choose.choice(b'0123456789[]",\\axe\n\xff')
            else:
                del damaged[place : place + choose.randrange(1, 20)]
            if len(damaged) <= header:
                break
        path.write_bytes(damaged)
        try:
            with Machine(image, clock="warp", replay=path) as machine:
                machine.run_until(lambda: False, timeout=0.05)
                outcomes.add("nothing")
        except PyemuError as error:
            outcomes.add(type(error).__name__)
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
    assert outcomes == {"nothing", "UsageError", "ReplayError"}


# ---------------------------------------------------------------- writing


def test_nothing_but_a_recording_is_overwritten(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="is there already, and is not a recording"):
        Writer(path)
    assert path.read_bytes() == b"precious"
    write(path, HEADER, [0, 0, "off", []])
    with Writer(path) as writer:
        writer.write(HEADER)
    assert read(path) == [HEADER]
    with pytest.raises(UsageError, match="is not a regular file"):
        Writer("/dev/null")
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        Writer(tmp_path / "no" / "run")
    with pytest.raises(UsageError, match="cannot be written"):
        Writer("a\0b")


def test_a_full_disk_ends_the_run_with_one_line(tmp_path):
    """Whoever wants a recording has to know that there will be none."""
    writer = Writer(tmp_path / "run")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._file.fileno())
    os.close(full)
    with pytest.raises(MachineError, match="cannot be written: No space left"):
        writer.write(Entry(0, 0, "off", []))
    writer.close()
