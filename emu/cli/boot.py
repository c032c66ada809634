"""``pyemu boot``: what its options mean.

Modules are imported where they are needed: importing is most of a command's cost before its machine runs.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devices.errors import UsageError
from emu.cli.completion import complete_audio, complete_directory, complete_file, complete_net
from emu.cli.repeating import Failure, recording
from emu.cli.reporting import debug_option, reporting
from emu.cli.signals import Signals
from emu.terminal.terminal import say

if TYPE_CHECKING:
    from devices.audio import AudioBackend
    from emu.cli.watching import SwitchOn, SwitchOnFor
    from emu.machine import Machine
    from emu.trace import Trace

__all__ = ["boot_command"]

_LONGEST_TIMEOUT = 10_000_000.0

_EPILOG = """\b
Examples:
  pyemu boot
      The default guest: a root shell, with ALSA's tools.
  pyemu boot --clock warp --audio wav:out.wav --exec "aplay /root/tone.wav"
      What the guest plays goes to a file, as fast as the host can compute.
  pyemu boot Image rootfs.cpio -m 1G --disk data.img,snapshot
      A kernel and a root file system of your own, and a disk that stays as it is.
  pyemu boot --net user,forward=tcp:127.0.0.1:2222-:22
      A network: the guest gets its address by itself, and its port 22 is the host's 2222.
  pyemu boot --clock warp --record run.pyemu
  pyemu boot --replay run.pyemu
      A session that is kept in a file; and the same once more, to the bit, with nobody at the keyboard.
  pyemu boot --exec "modprobe my_driver" --save ready.pyemu
  pyemu boot ready.pyemu
      Boot once, and go on from there in a blink, as often as you like.
  pyemu boot --gdb 1234
  gdb-multiarch "$(pyemu guest path --vmlinux)" -ex "target remote :1234"
      Linux in gdb, in another terminal: (gdb) break virtsnd_pcm_trigger
  pyemu boot --bios kernel/kernel --disk fs.img
      xv6, or anything else that runs in M mode, alone on the machine.

\b
Exit status:
  0    powered off; with --exec: every command succeeded
  1    the machine failed, the guest's kernel panicked, or sound could not be written
  2    wrong usage
  124  stopped by --timeout          130  stopped by C-c
  141  nobody reads stdout           143  stopped by SIGTERM
With --exec, the status of the command that failed. With --replay, 0 says that it was the same run.
"""


def _check_timeout(_context: click.Context, _option: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= _LONGEST_TIMEOUT:  # nor is nan
        raise click.BadParameter(f"{seconds:g} is not a number of seconds to wait")
    return seconds


@click.command("boot", epilog=_EPILOG, short_help="Switch on a machine: the default guest, or your own kernel.")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.argument("rootfs", required=False, type=click.Path(path_type=Path))
@click.option("-m", "--memory", metavar="SIZE", help="RAM, like 512M or 1G.  [default: 256M]")
@click.option(
    "-a",
    "--append",
    metavar="TEXT",
    help='Append TEXT to the kernel\'s command line, "console=ttyS0" (and norandmaps, for the default guest); a TEXT '
    "with a console= replaces it instead. The last console gets what is typed: ttyS0, or hvc0, the virtio console. "
    "=TEXT is the whole command line, whatever it contains.",
)
@click.option(
    "--disk",
    "disks",
    metavar="FILE[,readonly][,snapshot][,raw]",
    multiple=True,
    shell_complete=complete_file,
    help="A raw disk image, the guest's vda, vdb ... (at most 13). A snapshot is writable, but its changes are "
    "discarded. With raw, FILE is taken as raw even if it looks compressed or like another kind of image.",
)
@click.option(
    "--share",
    "shares",
    metavar="DIR[,readonly][,tag=NAME]",
    multiple=True,
    shell_complete=complete_directory,
    help="A directory of the host as a file system of the guest; the default guest has the first at /mnt. In others: "
    "mount -t virtiofs share /mnt (the tags are share, share1 and so on).",
)
@click.option(
    "--net",
    "nets",
    metavar="user[,forward=tcp:127.0.0.1:2222-:22]|socket:PATH",
    multiple=True,
    shell_complete=complete_net,
    help="A network card, the guest's eth0, eth1 ..., and what it is plugged into: this user's network, where the host "
    "is 10.0.2.2 and a forwarded port of the host leads to one of the guest; or another machine that is given the same "
    "PATH, pyemu or QEMU (-netdev stream).  With either: mac=, mtu=, log=OUT.pcap (for Wireshark)",
)
@click.option(
    "--audio",
    metavar="null|wav:OUT.wav[,in=IN.wav][,max=4G][,continue]|loopback|host[:NAME]|auto",
    default="auto",
    show_default=True,
    shell_complete=complete_audio,
    help="Where sound goes to and comes from: nowhere (at its normal pace); a file, exactly as played, and OUT.2.wav "
    "and so on after a change of format (continue: from where the snapshot's machine was in them, or behind what is "
    "there); back into the guest; the host's device (latency=100ms); the same if there is one (not with --clock "
    "warp).  With any: streams=OUT+IN, log=OUT.jsonl",
)
@click.option(
    "--clock",
    type=click.Choice(["host", "warp", "real"]),
    help="Real time; or time that passes as the guest works, and jumps to the next event when it waits.  "
    "[default: host]",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help="The source of all chance: random bytes, the calendar and, with --clock warp, the guest's timing, which each "
    "seed but 0 shifts a little.  [default: the host; 0 with --clock warp, where runs with the same input are "
    "bit-identical]",
)
@click.option(
    "--exec",
    "commands",
    metavar="COMMAND",
    multiple=True,
    help="Type COMMAND at the guest's shell, then power off. If given several times, stops at the first that fails.",
)
@click.option(
    "--quick",
    is_flag=True,
    envvar="PYEMU_QUICK",
    help="Go on from a snapshot of the default guest at its prompt instead of booting it. The snapshot is made at the "
    "first use, and anew when anything that it comes from has changed. PYEMU_QUICK=1 does the same.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="After --exec, save the machine in FILE instead of powering off; else C-a s does.  [default: saved.pyemu]",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the run in FILE: what is typed, the window's size, the monitor's commands, recorded sound, each with "
    "its place in the run. Needs --clock warp.",
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run what is in FILE again, to the bit, with the same IMAGE, ROOTFS and disks (as they were); other options "
    "are as they were recorded. Only C-a x and C-c are heeded.",
)
@click.option(
    "--timeout", type=float, metavar="SECONDS", callback=_check_timeout, help="Stop after SECONDS of real time."
)
@click.option(
    "--bios",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="M-mode firmware, like OpenSBI's fw_jump.bin, instead of the built-in one: a raw binary or an ELF file. "
    "Without IMAGE it is all that runs, like xv6.",
)
@click.option(
    "--dump-dtb",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the machine's device tree to FILE instead of booting.",
)
@click.option(
    "--trace",
    metavar="CATEGORIES",
    help="Print what happens in the machine on stderr, a line each: snd,virtio,net,plic,timer,sbi,run,trap, or all.",
)
@click.option(
    "--trace-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the trace to FILE instead, for a trace viewer (ui.perfetto.dev).  [default: all but trap]",
)
@click.option(
    "--meter", is_flag=True, help="Show levels, xruns, clock skew and CPU usage at the bottom of the terminal."
)
@click.option(
    "--gdb",
    metavar="[HOST:]PORT[,wait]",
    help="Let gdb connect to PORT (of this computer alone, unless HOST says otherwise; 0: any). While it has the "
    "machine stand, guest time and sound stand. With wait, the guest does not begin before gdb says so.",
)
@click.option("--clipboard", is_flag=True, help="Let the guest read and write your terminal's clipboard (OSC 52).")
@debug_option
def boot_command(
    *,
    image: Path | None,
    rootfs: Path | None,
    audio: str,
    commands: tuple[str, ...],
    timeout: float | None,
    dump_dtb: Path | None,
    trace: str | None,
    trace_file: Path | None,
    meter: bool,
    gdb: str | None,
    clipboard: bool,
    debug: bool,
    record: Path | None,
    replay: Path | None,
    save: Path | None,
    quick: bool,
    **hardware: Any,
) -> int:
    """Switch on a machine with the kernel IMAGE and the initramfs ROOTFS.

    IMAGE is Linux's arch/riscv/boot/Image and ROOTFS a cpio archive, both plain or compressed. Without them, it boots
    the default guest, which is built on first use: that takes some minutes. IMAGE may also be any other S-mode
    program, like U-Boot: an ELF file, or a raw binary, which is loaded at 0x80200000; ROOTFS is then any file. Or it
    is a snapshot, saved with --save or C-a s: the machine goes on from there, with its own RAM, disks and seed, and a
    guest that reboots finds itself there again.

    The guest's console is on stdin and stdout; all other messages go to stderr. C-a x quits, C-a h shows help. Files
    and pipes get every byte that the guest prints. A terminal obeys the guest's escape sequences, which may set its
    title, for example; only those for the clipboard are removed.
    """
    with (
        Failure(click.get_current_context().params) as failure,
        reporting(debug),
        Signals(timeout) as signals,
        _tracing(trace, trace_file, signals) as tracer,
        recording(image, record, replay, commands, hardware),
    ):
        from emu.cpu.library import load_meanwhile  # noqa: PLC0415

        load_meanwhile()
        from emu.arguments import DEFAULT_APPEND, GUEST_APPEND  # noqa: PLC0415
        from emu.cli import session  # noqa: PLC0415
        from emu.machine import Machine  # noqa: PLC0415
        from emu.snapshot.magic import is_snapshot  # noqa: PLC0415

        if replay is not None:  # as it was recorded
            quick = hardware["replay"].first["snapshot"] is not None
        default = DEFAULT_APPEND
        if image is None and hardware["bios"] is None:
            from emu import guest  # noqa: PLC0415

            image, rootfs = guest.files(say)
            default = GUEST_APPEND
        if image is None or not is_snapshot(image):
            hardware["append"] = _command_line(hardware["append"], default)
        if quick and image is not None and default == GUEST_APPEND:
            image, rootfs = _ready(image, rootfs, audio, hardware)

        def switch_on(output: Callable[[bytes], None] | None, backend: "AudioBackend | None") -> Machine:
            machine = Machine(image, rootfs, audio=backend, output=output, close_audio=False, trace=tracer, **hardware)
            return machine if gdb is None else _debugged(machine, gdb)

        if dump_dtb is not None:
            with switch_on(None, None) as machine:
                _write_file(dump_dtb, machine.dtb)
            return 0
        with (
            _networks(hardware),
            _sound(audio, real_time=hardware["clock"] != "warp") as backend,
            _metering(meter, lambda output: switch_on(output, backend), signals) as switch_on_and_show,
        ):
            rows_taken = 1 if meter and sys.stderr.isatty() else 0
            status = session.run(
                switch_on_and_show,
                signals,
                commands,
                rows_taken=rows_taken,
                clipboard=clipboard,
                replaying=replay is not None,
                snapshot=save,
            )
        return failure.told(1 if backend.lost and not status else status)


def _ready(image: Path, rootfs: Path | None, audio: str, hardware: dict[str, Any]) -> tuple[Path, Path | None]:
    """Return a snapshot of the guest, whose options are taken out of ``hardware``; or what it must boot from."""
    if hardware["disks"] or hardware["shares"] or hardware["nets"] or "streams=" in audio:
        say("the guest is booted: disks, shares, networks, and streams of sound, can't be given to one that has booted")
        return image, rootfs
    from emu.snapshot.ready import ready  # noqa: PLC0415

    options = {name: hardware.pop(name) for name in ("memory", "append")}
    return ready(image, rootfs, options, say, for_people=True), None


def _command_line(append: str | None, default: str) -> str:
    """Return the kernel's command line with ``-a TEXT``; see its help."""
    if append is None:
        return default
    if append.startswith("="):
        return append[1:]
    return append if "console=" in append else f"{default} {append}"


@contextlib.contextmanager
def _sound(spec: str, *, real_time: bool) -> "Iterator[AudioBackend]":
    """Provide the backend that ``--audio`` names, and print its summary at the end."""
    import logging  # noqa: PLC0415

    from devices import audio  # noqa: PLC0415

    class Say(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"{record.levelname.lower()}: {record.getMessage()}")

    logging.getLogger().addHandler(Say(logging.WARNING))
    backend = audio.parse(spec, real_time=real_time)
    try:
        yield backend
    finally:
        backend.close()
        for line in backend.summary():
            say(line)


@contextlib.contextmanager
def _networks(hardware: dict[str, Any]) -> "Iterator[None]":
    """Open what ``--net`` names, once for a guest that reboots."""
    if not hardware["nets"]:
        yield
        return
    from emu.cards import open_networks  # noqa: PLC0415

    with open_networks(hardware["nets"], hardware["clock"]) as hardware["nets"]:
        yield


def _tracing(
    categories: str | None, path: Path | None, signals: Signals
) -> "contextlib.AbstractContextManager[Trace | None]":
    if categories is None and path is None:
        return contextlib.nullcontext()
    from emu.cli import watching  # noqa: PLC0415

    return watching.tracing(categories, path, signals)


def _metering(
    wanted: bool, switch_on: "SwitchOnFor", signals: Signals
) -> "contextlib.AbstractContextManager[SwitchOn]":
    if not wanted:
        return contextlib.nullcontext(switch_on)
    from emu.cli import watching  # noqa: PLC0415

    return watching.metering(switch_on, signals)


def _debugged(machine: "Machine", spec: str) -> "Machine":
    """Let gdb connect to ``machine``, as ``--gdb`` says; say where. Raises UsageError, the machine being closed."""
    from emu.cli import debugging  # noqa: PLC0415

    return debugging.debugged(machine, spec)


def _write_file(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
