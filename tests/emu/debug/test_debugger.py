"""What a debugger can ask of a machine; and that the machine does not notice."""

import hashlib
import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from devices.errors import UsageError
from emu import Machine
from emu.cpu.native import SWITCH
from emu.debug.packets import LONGEST, Framer, frame
from emu.debug.registers import REGISTERS, description
from tests.emu import tiny
from tests.emu.asm import A0, A1, A2, A3, T0, T1, ZERO, Csr, Item, addi, assemble, bne, csrw, j, la, ld, li, nop, sb, sd
from tests.emu.debug.client import Client, debugged, pc, running

KERNEL = 0x8020_0000 + 64  # where a tiny kernel's code is
DATA = 0x8000_1000
UART = 0x1000_0000
Kernel = Callable[..., Path]

#: Prints the alphabet, and again, with a bit of work in between; a2 is the letter, a3 how often.
LETTERS: list[Item] = [
    li(A1, UART), li(A3, 0),
    "again", li(A2, ord("a")), li(T1, ord("z") + 1),
    "next", sb(A2, A1), addi(A2, A2, 1), li(T0, 50), "work", addi(T0, T0, -1), bne(T0, ZERO, "work"),
    bne(A2, T1, "next"), addi(A3, A3, 1), li(T0, 20), bne(A3, T0, "again"), tiny.POWER_OFF,
]  # fmt: skip
SIZES = [len(assemble(KERNEL, LETTERS[:n])) for n in (2, 3, 6, 7)]
#: Where it stores the letter.
PRINTS = KERNEL + len(assemble(KERNEL, LETTERS[:6]))


def undisturbed(image: Path, clock: str = "warp") -> tuple[str, int, int]:
    with Machine(image, clock=clock, memory="16M") as machine:
        machine.run()
        return digest(machine)


def digest(machine: Machine) -> tuple[str, int, int]:
    machine.console.flush()
    return hashlib.sha256(machine.console.text).hexdigest(), machine.clock.now(), machine._engine.blocks


@pytest.fixture
def letters(kernel: Kernel) -> Path:
    return kernel(LETTERS)


def test_the_guest_does_not_begin_before_the_debugger_says_so(letters: Path) -> None:
    with debugged(letters) as (machine, client):
        assert machine.clock.now() == 0
        assert client.ask(b"?") == b"S05"
        assert client.ask(b"vCont;c") == b"W00"
        assert machine.console.printed == 20 * 26


def test_in_a_process_with_many_descriptors(letters: Path) -> None:
    """With many machines, for example; select() knows none beyond 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    with ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        with debugged(letters) as (_, client):
            assert client.ask(b"?") == b"S05"


@pytest.mark.parametrize("clock", ["warp", "host"])
def test_registers_and_memory(letters: Path, clock: str) -> None:
    with debugged(letters, clock=clock) as (_, client):
        general = bytes.fromhex(client.ask(b"g").decode())
        assert len(general) == 33 * 8
        assert client.ask(b"G" + (general[:80] + b"\1" * 8 + general[88:]).hex().encode()) == b"OK"
        assert client.register(10) == 0x0101_0101_0101_0101
        assert client.ask(b"P2=0040000000000000") == b"OK"
        assert client.register(2) == 0x4000
        assert client.ask(b"M%x,4:11223344" % DATA) == b"OK"
        assert client.ask(b"X%x,3:}\x03#}" % (DATA + 4)) == b"E16"
        assert client.ask(b"X%x,3:A}\x03" % (DATA + 4)) == b"OK"
        assert client.ask(b"m%x,7" % DATA) == b"11223344417d03"
        assert client.ask(b"m10000000,4") == b"E16"  # a device's registers change when they are read
        assert client.ask(b"m80fffffc,8") == b"00000000"  # the RAM ends there
        assert client.ask(b"p0") == b"0" * 16


def test_every_register_can_be_read_and_is_described(letters: Path) -> None:
    with debugged(letters) as (_, client):
        text, offset = b"", 0
        while True:
            piece = client.ask(b"qXfer:features:read:target.xml:%x,100" % offset)
            text, offset = text + piece[1:], offset + len(piece) - 1
            if piece.startswith(b"l"):
                break
        assert text == description()
        for number, register in enumerate(REGISTERS):
            assert len(client.ask(b"p%x" % number)) == register.bits // 4, register.name
            assert b'name="%s"' % register.name.encode() in text


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("satp", 7 << 60, b"E16"),
        ("priv", 2, b"E16"),
        ("mip", 2, b"E16"),
        ("sscratch", 5, b"OK"),
        ("fcsr", 0x63, b"OK"),
        ("satp", 0, b"OK"),
    ],
)
def test_no_register_becomes_what_it_cannot_be(letters: Path, name: str, value: int, answer: bytes) -> None:
    number = next(n for n, register in enumerate(REGISTERS) if register.name == name)
    with debugged(letters) as (_, client):
        before, size = client.register(number), REGISTERS[number].bits // 8
        assert client.ask(b"P%x=%b" % (number, value.to_bytes(size, "little").hex().encode())) == answer
        assert client.register(number) == (value if answer == b"OK" else before)


@pytest.mark.parametrize("native", ["", "off"])
def test_breakpoints_and_steps_leave_the_run_as_it_is(
    letters: Path, native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same guest time, the same blocks and the same output, to the bit."""
    monkeypatch.setenv(SWITCH, native)
    expected = undisturbed(letters)
    with debugged(letters) as (machine, client):
        assert client.ask(b"Z0,%x,4" % PRINTS) == b"OK"
        for letter in b"abcde":
            assert client.ask(b"vCont;c").startswith(b"T05hwbreak:;")
            assert (pc(client), client.register(12)) == (PRINTS, letter)
        for _ in range(300):
            assert client.ask(b"vCont;s:1").startswith(b"T05")
        assert client.ask(b"z0,%x,4" % PRINTS) == b"OK"
        assert client.ask(b"c") == b"W00"
        assert digest(machine) == expected


def test_a_watchpoint_tells_the_address_and_stops_behind(kernel: Kernel) -> None:
    code: list[Item] = [li(A0, DATA), li(A1, 3), "loop", nop(), sd(A1, A0, 8), addi(A1, A1, -1), bne(A1, ZERO, "loop"),
                        ld(A2, A0, 8), tiny.POWER_OFF]  # fmt: skip
    image = kernel(code)
    store = KERNEL + len(assemble(KERNEL, code[:4]))
    expected = undisturbed(image)
    with debugged(image) as (machine, client):
        assert client.ask(b"Z2,%x,8" % (DATA + 8)) == b"OK"
        for _ in range(3):
            assert client.ask(b"c") == b"T05watch:%x;thread:1;" % (DATA + 8)
            assert pc(client) == store + 4
        assert client.ask(b"Z3,%x,4" % (DATA + 8)) == b"OK"
        assert client.ask(b"c").startswith(b"T05rwatch")
        assert client.ask(b"z2,%x,8" % (DATA + 8)) == client.ask(b"z3,%x,4" % (DATA + 8)) == b"OK"
        assert client.ask(b"c") == b"W00"
        assert digest(machine) == expected


def test_a_watchpoint_without_the_native_part_is_refused_with_the_reason(
    letters: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SWITCH, "off")
    with debugged(letters) as (_, client):
        assert client.ask(b"Z2,%x,8" % DATA) == b""
    assert [record.getMessage() for record in caplog.records] == [
        "gdb asked for a watchpoint, which needs the native part of the engine; see pyemu --version"
    ]


def test_c_c_stops_and_time_stands_while_it_stands(kernel: Kernel) -> None:
    with debugged(kernel(tiny.SPIN), clock="host") as (machine, client):
        client.send(b"vCont;c")
        client.interrupt()
        assert client.receive().startswith(b"T02")
        before = machine.clock.now()
        assert pc(client)
        assert machine.clock.now() == before


def test_the_monitor_is_pyemus(letters: Path) -> None:
    with debugged(letters) as (_, client):
        client.send(b"qRcmd," + b"info clock".hex().encode())
        assert b"guest time" in bytes.fromhex(client.receive()[1:].decode())
        assert client.receive() == b"OK"
        client.send(b"qRcmd," + b"resume".hex().encode())
        assert b"a debugger has the machine stand" in bytes.fromhex(client.receive()[1:].decode())
        assert client.receive() == b"OK"


def test_physical_addresses_as_with_qemu(letters: Path) -> None:
    with debugged(letters) as (_, client):
        assert client.ask(b"qqemu.PhyMemMode") == b"0"
        assert client.ask(b"Qqemu.PhyMemMode:1") == b"OK"
        assert client.ask(b"qqemu.PhyMemMode") == b"1"
        assert client.ask(b"m80200038,4") == b"52534305"  # of an Image's header


def test_kill_switches_off(letters: Path) -> None:
    with debugged(letters) as (machine, client):
        client.send(b"k")
        with pytest.raises(EOFError):
            client.receive()
    assert machine.power is not None


@pytest.mark.parametrize("leave", [lambda client: client.ask(b"D"), lambda client: client.close()])
def test_who_leaves_or_vanishes_leaves_a_guest_that_goes_on(letters: Path, leave: Callable[[Client], object]) -> None:
    expected = undisturbed(letters)
    with Machine(letters, clock="warp", memory="16M") as machine:
        port = machine.gdb(wait=True)
        with running(machine):
            client = Client(port)
            client.ask(b"Z0,%x,4" % PRINTS)
            client.ask(b"c")
            client.ask(b"vCont;s:1")
            leave(client)
            while machine.power is None:
                time.sleep(0.01)
            client.close()
        assert digest(machine) == expected


def test_the_next_one_waits_for_the_first(kernel: Kernel) -> None:
    with debugged(kernel(tiny.SPIN)) as (_, client):
        second = socket.create_connection(("127.0.0.1", client.port))
        second.sendall(frame(b"?"))
        assert client.ask(b"?") == b"S05"
        client.close()
        with second, second.makefile("rb") as answers:
            assert answers.read(5) == b"+$S05"


def test_a_snapshot_is_taken_between_turns_only(letters: Path) -> None:
    with debugged(letters) as (machine, client):
        client.ask(b"Z0,%x,4" % PRINTS)
        client.ask(b"c")
        with pytest.raises(UsageError, match="another thread"):
            machine.snapshot()
        client.send(b"qRcmd," + b"save /nowhere/x".hex().encode())
        assert b"in the middle of a step" in bytes.fromhex(client.receive()[1:].decode())
        assert client.receive() == b"OK"


def test_a_machine_from_a_snapshot_can_be_debugged(letters: Path) -> None:
    with Machine(letters, clock="warp", memory="16M") as machine:
        machine.run_for(0.0001)
        snapshot = machine.snapshot()
        machine.run()
        expected = digest(machine)
    with Machine(snapshot, clock="warp") as machine:
        port = machine.gdb(wait=True)
        with running(machine):
            client = Client(port)
            client.ask(b"Z0,%x,4" % PRINTS)
            for _ in range(3):
                assert client.ask(b"c").startswith(b"T05hwbreak")
            client.ask(b"z0,%x,4" % PRINTS)
            assert client.ask(b"c") == b"W00"
            client.close()
        assert digest(machine) == expected


# ---------------------------------------------------------------- strangers


#: Packets that make sense: with ``%x``, a number that may be anything. No register is written that the guest dies of.
SENSE = [
    b"g", b"p%x", b"P20=%016x", b"P%x=%016x", b"m%x,%x", b"M80201000,4:%08x", b"X80201000,4:ab}]c", b"Z0,%x,4",
    b"z0,%x,4", b"Z2,%x,8", b"z2,%x,8", b"Z4,%x,%x", b"s", b"s%x", b"vCont;s:1", b"vCont;r%x,%x", b"H%x", b"T%x", b"?",
    b"vCont?", b"vMustReplyEmpty", b"qXfer:features:read:target.xml:%x,%x", b"qRcmd,7a7a", b"bs", b"bc",
    b"Qqemu.PhyMemMode:1", b"Qqemu.PhyMemMode:0", b"qSupported:%x", b"qfThreadInfo", b"!", b"\x7f",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, 32, 33, LONGEST, KERNEL, KERNEL + 1, DATA, 0x8100_0000 - 2, UART, (1 << 63) - 1, (1 << 64) - 1]
#: Whatever goes wrong, it spins.
ROBUST: list[Item] = [la(T0, "trap"), csrw(Csr.STVEC, T0), "loop", j("loop"), "trap", j("trap")]


def a_packet(choose: random.Random) -> bytes:
    """Most make sense."""
    pattern = choose.choice(SENSE)
    body = pattern
    for field in re.findall(rb"%[0-9]*x", pattern):
        size = int(field[1:-1] or 16) * 4
        number = choose.choice([*NUMBERS, choose.getrandbits(64), choose.getrandbits(6)])
        body = body.replace(field, field % (number & (1 << size) - 1), 1)
    if body.startswith(b"P") and int(body[1:].partition(b"=")[0], 16) > 63:
        return b"P40" + body
    return body if choose.random() < 0.7 else body[:3] + bytes(choose.choices(b"0123456789abcdef,:;=}\x7f\xff", k=20))


def answer_to(client: Client) -> bytes:
    """Leave out what the monitor prints; a step in a range that takes for ever is interrupted."""
    client.socket.settimeout(0.5)
    while True:
        try:
            answer = client.receive()
        except TimeoutError:
            client.interrupt()
            continue
        if not answer.startswith(b"O") or answer == b"OK":
            client.socket.settimeout(None)
            return answer


@pytest.mark.parametrize("clock", ["warp", "host"])
def test_ten_thousand_random_packets(kernel: Kernel, clock: str) -> None:
    """Half of them are damaged; each that is whole is answered, once, whatever it does to the CPU; the guest lives."""
    choose = random.Random(1)
    kinds = set()
    with debugged(kernel(ROBUST), clock=clock) as (_, client):
        for _ in ROBUST:
            client.ask(b"vCont;s:1")
        for _ in range(50):
            data, expected = b"", Framer()
            for _ in range(100):
                whole = frame(a_packet(choose))
                if choose.random() < 0.5:
                    at = choose.randrange(len(whole))
                    whole = whole[:at] + bytes(choose.choices(b"\0a#$-\xff", k=3)) + whole[at + 1 :]
                data += whole
            data += b"#00"
            packets = [packet for packet in expected.feed(data) if packet is not None]
            client.socket.sendall(data + frame(b"qC"))
            answers = [answer_to(client) for _ in packets]
            assert answer_to(client) == b"QC1", (packets, answers)
            kinds |= {packet[:1] for packet in packets}
        assert len(kinds) > 15
        assert client.ask(b"vCont;s:1").startswith(b"T05")


def test_a_flood_without_an_end_takes_no_room(letters: Path) -> None:
    with debugged(letters) as (_, client):
        client.socket.sendall(b"$" + b"m" * (4 << 20))
        client.socket.sendall(b"#00" + frame(b"qC"))
        assert client.receive() == b"QC1"


def test_who_does_not_read_is_shown_out(kernel: Kernel) -> None:
    many = frame(b"m80200000,%x" % (LONGEST // 2)) * 100_000
    with debugged(kernel(tiny.WAIT)) as (_, client):
        with suppress(OSError):
            client.socket.sendall(many)
        other = Client(client.port)  # whose turn has come
        assert other.ask(b"qC") == b"QC1"
        other.close()


def test_a_port_that_is_taken(letters: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Machine(letters, clock="warp", memory="16M") as machine,
        pytest.raises(UsageError, match=r"a debugger cannot connect to 127\.0\.0\.1:[0-9]+: Address already in use"),
    ):
        machine.gdb(taken.getsockname()[1])


def test_without_a_debugger_nothing_of_it_is_imported(letters: Path) -> None:
    code = f"""
import sys, emu.cli.boot
from emu import Machine
Machine({str(letters)!r}, clock="warp", memory="16M").close()
print([name for name in sys.modules if "debug" in name or "stepper" in name])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"
