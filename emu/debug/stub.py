"""What gdb's packets mean (gdb's manual, appendix E): each command is asked of the target, and answered.

All of it runs on the machine's thread, a packet at a time. Whatever a packet holds, it is answered: with nothing if it
is not known, as the protocol asks for, and with an error if it makes no sense.
"""

import logging
import re
from collections.abc import Callable

from devices.errors import PyemuError, UsageError
from devices.power import PowerAction
from emu.cpu.native import WATCH_READ, WATCH_WRITE
from emu.cpu.stepper import Stop
from emu.debug import registers
from emu.debug.packets import LONGEST, unescape
from emu.debug.target import Target, Watch

__all__ = ["Stub"]

_log = logging.getLogger(__name__)

_INTERRUPTED, _TRAPPED = 2, 5  # gdb's numbers of SIGINT and SIGTRAP
_ERROR = b"E16"  # EINVAL, in hexadecimal digits
_OK = b"OK"
#: More breakpoints than a debugger sets; each has a look at every block of its page.
_MOST_BREAKPOINTS = 1000
_MOST_WATCHPOINTS = 64
#: Watchpoints: gdb's name, and what is watched for.
_WATCHES = {b"2": (b"watch", WATCH_WRITE), b"3": (b"rwatch", WATCH_READ), b"4": (b"awatch", WATCH_READ | WATCH_WRITE)}
_MONITOR_CHUNK = 4 << 10
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")
_FEATURES = b"PacketSize=%x;QStartNoAckMode+;vContSupported+;qXfer:features:read+;hwbreak+" % LONGEST
_REVERSE = b";ReverseStep+;ReverseContinue+"
#: The only thread is the hart.
_THREAD = b"1"


class _NonsenseError(Exception):
    """A packet makes no sense."""


class Stub:
    """Answers the packets of one debugger, ``send(data)`` sends a packet, and ``leave`` ends the connection."""

    def __init__(self, target: Target, send: Callable[[bytes], None], leave: Callable[[], None]) -> None:
        self._target, self._send, self._leave = target, send, leave
        #: Whether the debugger waits for the machine to stand.
        self.waits = False
        self._last = b"S%02x" % _TRAPPED
        target.report, target.switched_off = self._report, self.end
        self._packets: dict[bytes, Callable[[bytes], bytes | None]] = {
            b"?": lambda _: self._last,
            b"g": self._read_all,
            b"G": self._write_all,
            b"p": self._read_register,
            b"P": self._write_register,
            b"m": self._read_memory,
            b"M": self._write_memory,
            b"X": self._load_memory,
            b"Z": lambda data: self._set_breakpoint(data, insert=True),
            b"z": lambda data: self._set_breakpoint(data, insert=False),
            b"c": self._continue,
            b"C": lambda data: self._continue(data.partition(b";")[2]),
            b"s": self._step,
            b"S": lambda data: self._step(data.partition(b";")[2]),
            b"v": self._verbose,
            b"q": self._query,
            b"Q": self._set,
            b"H": lambda _: _OK,
            b"T": lambda data: _OK if _number(data) == int(_THREAD) else _ERROR,
            b"b": self._go_back,
            b"D": self._detach,
            b"k": self._kill,
        }
        #: Called when no more acknowledgements are wanted.
        self.no_acks: Callable[[], None] = lambda: None

    # ---------------------------------------------------------------- from outside

    def packet(self, data: bytes) -> None:
        """Answer a packet."""
        handle = self._packets.get(data[:1])
        try:
            answer = b"" if handle is None else handle(data[1:])
        except (_NonsenseError, PyemuError):
            answer = _ERROR
        if answer is not None:
            self._send(answer)

    def interrupt(self) -> None:
        """Have the machine stand: C-c."""
        if self.waits:
            self._target.stand()
            self._last = b"T%02xthread:%s;" % (_INTERRUPTED, _THREAD)
            self._answer()

    def end(self) -> None:
        """The machine is switched off."""
        request = self._target.machine.power
        if self.waits and request is not None:
            self._send(b"W%02x" % (request.action is PowerAction.FAIL))
        self.waits = False

    def _report(self, stop: Stop) -> None:
        why = {"break": b"hwbreak:;", "begin": b"replaylog:begin;"}.get(stop.reason, b"")
        if stop.reason == "watch":
            watches = [watch for watch in self._target.watches if watch.kinds & stop.kind]
            names = [watch.name for watch in watches if watch.first <= stop.address <= watch.last]
            why = b"%s:%x;" % (names[0] if names else b"watch", stop.address)
        self._last = b"T%02x%sthread:%s;" % (_TRAPPED, why, _THREAD)
        self._answer()

    def _answer(self) -> None:
        if self.waits:
            self.waits = False
            self._send(self._last)

    # ---------------------------------------------------------------- registers and memory

    def _read_all(self, _data: bytes) -> bytes:
        return b"".join(self._target.read_register(n) for n in range(registers.GENERAL)).hex().encode()

    def _write_all(self, data: bytes) -> bytes:
        values = _bytes(data)
        if len(values) != 8 * registers.GENERAL:
            raise _NonsenseError
        for number in range(registers.GENERAL):
            self._target.write_register(number, values[8 * number : 8 * number + 8])
        return _OK

    def _read_register(self, data: bytes) -> bytes:
        return self._target.read_register(_number(data)).hex().encode()

    def _write_register(self, data: bytes) -> bytes:
        number, _, value = data.partition(b"=")
        self._target.write_register(_number(number), _bytes(value))
        return _OK

    def _read_memory(self, data: bytes) -> bytes:
        address, size = _numbers(data)
        if not size:
            return b""
        return self._target.read_memory(address, min(size, LONGEST // 2 - 8)).hex().encode()

    def _write_memory(self, data: bytes) -> bytes:
        where, _, digits = data.partition(b":")
        address, size = _numbers(where)
        return self._write(address, size, _bytes(digits))

    def _load_memory(self, data: bytes) -> bytes:
        where, _, contents = data.partition(b":")
        address, size = _numbers(where)
        return self._write(address, size, unescape(contents))

    def _write(self, address: int, size: int, contents: bytes) -> bytes:
        if len(contents) != size:
            raise _NonsenseError
        self._target.write_memory(address, contents)
        return _OK

    # ---------------------------------------------------------------- stops

    def _set_breakpoint(self, data: bytes, *, insert: bool) -> bytes:
        kind, _, rest = data.partition(b",")
        address, size = _numbers(rest.partition(b";")[0])
        if kind in _WATCHES and self._target.can_watch:
            watches = self._target.watches
            one = Watch(*_WATCHES[kind], address, min(address + max(size, 1), 1 << 64) - 1)
            if not insert and one in watches:
                watches.remove(one)
            elif insert and len(watches) < _MOST_WATCHPOINTS:
                watches.append(one)
            elif insert:
                raise _NonsenseError
            self._target.watch()
            return _OK
        if kind in _WATCHES and insert:  # gdb has words of its own for it, which say less
            _log.warning("gdb asked for a watchpoint, which needs the native part of the engine; see pyemu --version")
        if kind not in {b"0", b"1"}:
            return b""
        breakpoints = self._target.stepper.breakpoints
        if not insert:
            breakpoints.discard(address)
        elif len(breakpoints) >= _MOST_BREAKPOINTS:
            raise _NonsenseError
        else:
            breakpoints.add(address)
        return _OK

    def _continue(self, data: bytes) -> bytes | None:
        return self._go_on(data)

    def _step(self, data: bytes) -> bytes | None:
        return self._go_on(data, stepping=True)

    def _go_on(self, address: bytes = b"", *, stepping: bool = False, within: range = range(0)) -> bytes | None:
        target = self._target
        if not target.stands:
            raise _NonsenseError
        if target.machine.power is not None:
            return b"W00"
        if address:
            target.write_register(registers.PC, _number(address).to_bytes(8, "little"))
        self.waits = True
        target.go_on(stepping=stepping, within=within)
        return None

    def _go_back(self, data: bytes) -> bytes | None:
        if data not in {b"s", b"c"} or not self._target.stands:
            raise _NonsenseError
        self.waits = True
        try:
            self._target.go_back(stepping=data == b"s")
        except UsageError:
            self.waits = False
            raise
        return None

    def _verbose(self, data: bytes) -> bytes | None:
        if data == b"Cont?":
            return b"vCont;c;C;s;S;r"
        if data.startswith(b"Kill"):
            self._kill(data)
            return None
        if not data.startswith(b"Cont;"):
            return b""
        action = data.split(b";")[1].partition(b":")[0]  # the first that fits is for the only thread
        kind = action[:1].upper()
        if kind in {b"C", b"S"}:
            return self._go_on(stepping=kind == b"S")
        if kind != b"R":  # and with "t" only those stop that run, where some do
            raise _NonsenseError
        first, last = _numbers(action[1:])
        return self._go_on(stepping=True, within=range(first, max(first, last)))

    def _detach(self, _data: bytes) -> None:
        self._send(_OK)
        self._leave()

    def _kill(self, data: bytes) -> None:
        if data.startswith(b"Kill"):
            self._send(_OK)
        self._target.machine.switch_off()
        self._leave()

    # ---------------------------------------------------------------- questions

    def _query(self, data: bytes) -> bytes | None:
        name = re.split(rb"[:,;]", data, maxsplit=1)[0]
        if name == b"Supported":
            return _FEATURES + (b"" if self._target.history is None else _REVERSE)
        if data.startswith(b"Xfer:features:read:target.xml:"):
            return _piece(registers.description(), data.rpartition(b":")[2])
        if name == b"Rcmd":
            return self._monitor(data.partition(b",")[2])
        if name == b"ThreadExtraInfo":
            return b"hart 0".hex().encode()
        answers = {
            b"C": b"QC" + _THREAD, b"fThreadInfo": b"m" + _THREAD, b"sThreadInfo": b"l", b"Attached": b"1",
            b"Symbol": _OK, b"qemu.PhyMemMode": b"%d" % self._target.physical,
        }  # fmt: skip
        return answers.get(name, b"")

    def _set(self, data: bytes) -> bytes | None:
        if data == b"StartNoAckMode":
            self._send(_OK)
            self.no_acks()
            return None
        if data in {b"qemu.PhyMemMode:0", b"qemu.PhyMemMode:1"}:
            self._target.physical = data.endswith(b"1")
            return _OK
        return b""

    def _monitor(self, digits: bytes) -> bytes:
        """Do what is asked of the monitor."""
        line = _bytes(digits).decode(errors="replace")
        try:
            text = self._target.machine.monitor(line)
        except UsageError as error:
            text = f"error: {error}"
        data = f"{text}\n".encode() if text else b""
        for start in range(0, len(data), _MONITOR_CHUNK):
            self._send(b"O" + data[start : start + _MONITOR_CHUNK].hex().encode())
        return _OK


def _number(digits: bytes) -> int:
    if not _HEX.fullmatch(digits):
        raise _NonsenseError
    return int(digits, 16)


def _numbers(data: bytes) -> tuple[int, int]:
    """Two numbers, with a comma between them."""
    first, _, second = data.partition(b",")
    return _number(first), _number(second)


def _bytes(digits: bytes) -> bytes:
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        raise _NonsenseError from None


def _piece(whole: bytes, where: bytes) -> bytes:
    offset, size = _numbers(where)
    piece = whole[offset : offset + min(size, LONGEST - 8)]
    return (b"m" if offset + len(piece) < len(whole) else b"l") + piece
