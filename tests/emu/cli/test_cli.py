"""The command line around small kernels: exit statuses, which output goes where, and the messages for wrong usage."""

import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from emu import arguments, guest
from emu.cli import cli, session
from emu.cli.guest import guest_group
from emu.cli.signals import Ending, Signals
from emu.guest import cpio, inputs
from emu.machine import Machine
from tests.emu import asm, tiny

PYEMU = [sys.executable, "-m", "emu"]
ROOT = Path(__file__).parents[3]


@contextmanager
def process(*arguments: object, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command line in its own process, which is killed at the end if it is still there."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen([*PYEMU, *map(str, arguments)], cwd=ROOT, **options) as running:
        try:
            yield running
        finally:
            running.kill()


HUSHED = """
import os, click, emu.cli
@emu.cli.cli.command("hush")
def hush():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    emu.cli.say("heard")
    raise click.UsageError("heard, too")
emu.cli.main(["hush"])
"""


def test_what_is_said_while_sounddevice_hushes_its_libraries_is_heard():
    """It points descriptor 2 to nowhere for as long as it looks for the host's sound, which --audio auto lets it do."""
    run = subprocess.run([sys.executable, "-c", HUSHED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (2, "pyemu: heard\npyemu: error: heard, too; see pyemu hush --help\n")


# ---------------------------------------------------------------- how it ends


def test_power_off_is_status_0_and_only_the_guest_writes_to_stdout(kernel, pyemu):
    assert pyemu("boot", kernel(tiny.say("hello\n"), tiny.POWER_OFF)) == (0, "hello\n", "")


def test_failure_is_status_1(kernel, pyemu):
    status, _, error = pyemu("boot", kernel(tiny.FAIL))
    assert status == 1
    assert error == "pyemu: error: the guest switched the machine off because of a failure (code 1)\n"


def test_machine_error_is_status_1_and_a_line_with_hart_pc_and_cause(kernel, pyemu):
    status, _, error = pyemu("boot", kernel(tiny.TRAP))
    assert status == 1
    assert re.fullmatch(r"pyemu: error: hart 0 .* pc 0x\w+, cause \d+ .*\n", error)


def test_panic_is_status_1_and_repeats_why(kernel, pyemu):
    status, _, error = pyemu("boot", kernel(tiny.panic("for a test")))
    assert (status, error) == (1, "pyemu: error: the guest's kernel panicked: for a test\n")


def test_a_kernel_without_a_root_file_system_is_told_how_to_get_one(kernel, pyemu):
    _, _, error = pyemu("boot", kernel(tiny.panic("VFS: Unable to mount root fs on x")))
    assert error.endswith("on x; give it an initramfs, or a disk and root=/dev/vda\n")


def test_a_kernel_that_cannot_use_its_initramfs_is_told_what_may_be_wrong_with_it(kernel, pyemu, tmp_path):
    initrd = tmp_path / "rootfs.cpio"
    initrd.write_bytes(cpio.pack([]))
    _, _, error = pyemu("boot", kernel(tiny.panic("VFS: Unable to mount root fs on x")), initrd)
    assert f"on x; {initrd} has no /init, or is damaged" in error


@pytest.mark.parametrize("name", ["Image", "rootfs.cpio"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:60]), Path.unlink])
def test_a_damaged_cache_is_to_be_removed(kernel, pyemu, tmp_path, monkeypatch, name, damage):
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path))
    (tmp_path / "part").mkdir()
    files = [kernel(tiny.POWER_OFF).rename(tmp_path / "part" / "Image"), tmp_path / "part" / "rootfs.cpio"]
    files[1].write_bytes(cpio.pack([]))
    damage(tmp_path / "part" / name)
    monkeypatch.setattr(guest, "files", lambda *_: files)
    status, _, error = pyemu("boot")
    assert status == 2
    assert error.startswith(f"pyemu: error: {tmp_path}/part/{name}: ")
    assert error.endswith(f"; remove {tmp_path}/part, then: pyemu guest build\n")


@pytest.mark.parametrize("code", [tiny.SPIN, tiny.WAIT], ids=["computing", "waiting"])
def test_timeout_is_status_124(kernel, code):
    with process("boot", kernel(tiny.say("on\n"), code), "--timeout", "1000") as running:
        assert running.stdout.read(3) == b"on\n"
        running.send_signal(signal.SIGALRM)  # as the timer does: it would not wait for a host that is busy
        assert running.wait() == 124
        assert running.stderr.read() == b"pyemu: stopped after 1000 s (--timeout)\n"


def test_a_timeout_comes_by_itself(kernel, pyemu):
    status, _, error = pyemu("boot", kernel(tiny.SPIN), "--timeout", "0.2")
    assert (status, error) == (124, "pyemu: stopped after 0.2 s (--timeout)\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("code", [tiny.SPIN, tiny.WAIT], ids=["computing", "waiting"])
def test_signal_ends_it_with_the_shells_status(kernel, code, number, status):
    with process("boot", kernel(tiny.say("on\n"), code)) as running:
        assert running.stdout.read(3) == b"on\n"
        running.send_signal(number)
        assert running.wait() == status
        assert running.stderr.read() == b""


def test_signal_ends_it_where_nobody_reads_its_output(kernel):
    forever = ["again", tiny.say("x"), asm.j("again")]
    with process("boot", kernel(forever)) as running:
        running.stdout.read(100_000)
        time.sleep(0.3)  # the pipe is full now
        running.terminate()
        assert running.wait() == 143


def test_ignored_signal_stays_ignored(kernel):
    with process("boot", kernel(tiny.ECHO), stdin=subprocess.PIPE,
                 preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as running:  # fmt: skip
        running.stdin.write(b"on")
        running.stdin.flush()
        assert running.stdout.read(2) == b"on"
        running.send_signal(signal.SIGHUP)
        running.stdin.write(b"\x04")
        running.stdin.flush()
        assert running.wait() == 0


def test_reader_that_goes_away_is_status_141_without_a_message(kernel):
    forever = ["again", tiny.say("x"), asm.j("again")]
    with process("boot", kernel(forever)) as running:
        running.stdout.close()
        assert running.wait() == 141
        assert running.stderr.read() == b""


def test_full_disk_is_status_1(kernel):
    with (
        Path("/dev/full").open("wb") as full,
        process("boot", kernel(tiny.say("x"), tiny.SPIN), stdout=full) as running,
    ):
        assert running.wait() == 1
        assert running.stderr.read() == b"pyemu: error: the guest's output cannot be written: No space left on device\n"


def test_closed_standard_files_are_not_replaced_by_the_disk(kernel, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    image = kernel(tiny.say("not on the disk"), tiny.POWER_OFF)
    command = f'exec "$@" boot {image} --disk {disk} 0<&- 1>&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", command, "sh", *PYEMU], cwd=ROOT, check=False).returncode == 0
    assert disk.read_bytes() == bytes(1 << 20)


COPY = "\x1b]52;c;eA==\x07"


def test_a_pipe_gets_every_byte(kernel, pyemu):
    image = kernel(tiny.say(f"before{COPY}after\x1b[6n\n"), tiny.POWER_OFF)
    assert pyemu("boot", image)[1] == f"before{COPY}after\x1b[6n\n"


# ---------------------------------------------------------------- reset


def test_reset_switches_it_on_again(kernel, tmp_path):
    disk, sound = tmp_path / "disk.img", tmp_path / "out.wav"
    disk.write_bytes(bytes(1 << 20))
    image = kernel(tiny.say("on\n"), tiny.RESET)
    with process("boot", image, "--disk", disk, "--audio", f"wav:{sound}", "--clock", "warp") as running:
        assert [running.stdout.readline() for _ in range(4)] == [b"on\n"] * 4
        running.terminate()
        assert running.communicate()[1].decode().splitlines() == [f"pyemu: {sound}: nothing was played"]
        assert running.returncode == 143


class Interrupted:
    """An object in whose finalizer, where no exception can be raised, a signal arrives."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_between_two_machines_ends_the_run_wherever_it_arrives(kernel, capfd):
    machines = []

    def switch_on(output):
        if machines:
            Interrupted()
        machines.append(Machine(kernel(tiny.say("on\n"), tiny.RESET), clock="warp", output=output))
        return machines[-1]

    with pytest.raises(Ending) as end, Signals() as signals:
        session.run(switch_on, signals)
    assert end.value.status == 143
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- standard input


def test_input_reaches_the_guest_unchanged_and_its_end_ends_nothing_else(kernel):
    data = bytes(range(5, 256)) * 40 + bytes(range(4)) + b"\x01x"
    with process("boot", kernel(tiny.ECHO), stdin=subprocess.PIPE) as running:
        running.stdin.write(data)
        running.stdin.close()
        assert running.stdout.read(len(data)) == data
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.2)


def test_input_that_the_guest_does_not_read_is_not_piled_up(kernel):
    with process("boot", kernel(tiny.WAIT), stdin=subprocess.PIPE) as running:
        os.set_blocking(running.stdin.fileno(), False)
        written = stuck = 0
        while written <= 1 << 20 or (stuck < 100 and written < 2 << 20):
            try:
                written += os.write(running.stdin.fileno(), bytes(1 << 16))
                stuck = 0
            except BlockingIOError:
                time.sleep(0.005)
                stuck += 1
        assert written < 2 << 20


# ---------------------------------------------------------------- options


def test_append_adds_to_the_default(kernel, tmp_path, pyemu):
    dtb = tmp_path / "dtb"
    pyemu("boot", kernel(tiny.SPIN), "-a", "quiet", "--dump-dtb", dtb)
    assert f"{arguments.DEFAULT_APPEND} quiet\0".encode() in dtb.read_bytes()


def test_append_with_a_console_replaces_the_default(kernel, tmp_path, pyemu):
    dtb = tmp_path / "dtb"
    pyemu("boot", kernel(tiny.SPIN), "-a", "console=hvc0 quiet", "--dump-dtb", dtb)
    assert b"console=hvc0 quiet\0" in dtb.read_bytes()
    assert arguments.DEFAULT_APPEND.encode() not in dtb.read_bytes()


@pytest.mark.parametrize("text", ["", "selftest a  b", "=console=hvc0 quiet"])
def test_append_with_an_equals_sign_is_the_whole_command_line(kernel, tmp_path, pyemu, text):
    dtb = tmp_path / "dtb"
    pyemu("boot", kernel(tiny.SPIN), "-a", f"={text}", "--dump-dtb", dtb)
    of_this_size = struct.pack(">II", 3, len(text) + 1)  # FDT_PROP
    assert re.search(re.escape(of_this_size) + b"(?s:....)" + text.encode() + b"\0", dtb.read_bytes())
    assert arguments.DEFAULT_APPEND.encode() not in dtb.read_bytes()


def test_firmware_alone_is_a_machine_without_the_default_guest(pyemu, tmp_path, monkeypatch):
    monkeypatch.setattr(guest, "files", lambda *_: pytest.fail("the default guest was asked for"))
    bios = tmp_path / "firmware.bin"
    bios.write_bytes(asm.assemble(0x8000_0000, tiny.say("M mode\n"), tiny.POWER_OFF))
    assert pyemu("boot", "--bios", bios) == (0, "M mode\n", "")


def test_a_raw_binary_runs_in_s_mode(pyemu, tmp_path):
    image = tmp_path / "u-boot.bin"
    image.write_bytes(
        asm.assemble(0x8020_0000, asm.csrr(asm.T0, asm.Csr.SSTATUS), tiny.say("S mode\n"), tiny.POWER_OFF)
    )
    assert pyemu("boot", image) == (0, "S mode\n", "")


def test_linux_with_an_initramfs_that_is_no_archive_gets_a_warning(kernel, pyemu, tmp_path):
    initrd = tmp_path / "root.squashfs"
    initrd.write_bytes(b"hsqs" + bytes(1000))
    status, _, error = pyemu("boot", kernel(tiny.POWER_OFF), initrd)
    assert status == 0
    assert error.startswith(
        f"pyemu: warning: {initrd}: not a cpio archive (newc) but a squashfs file system; give it with"
    )


def test_the_seed_is_where_chance_comes_from(kernel, tmp_path, pyemu):
    image, dtb = kernel(tiny.SPIN), tmp_path / "dtb"

    def tree(*options):
        assert pyemu("boot", image, "--dump-dtb", dtb, *options) == (0, "", "")
        return dtb.read_bytes()

    warp = "--clock", "warp"
    assert tree(*warp) == tree(*warp, "--seed", 0) != tree(*warp, "--seed", 1) == tree("--seed", 1)
    assert tree() != tree()


def test_dump_dtb_writes_the_tree_and_does_not_boot(kernel, tmp_path, pyemu):
    dtb = tmp_path / "dtb"
    assert pyemu("boot", kernel(tiny.SPIN), "--dump-dtb", dtb) == (0, "", "")
    assert dtb.read_bytes().startswith(b"\xd0\x0d\xfe\xed")


def test_help_names_the_real_default(pyemu):
    status, output, _ = pyemu("boot", "--help")
    assert status == 0
    assert f"[default: {arguments.DEFAULT_MEMORY}]" in output
    assert arguments.DEFAULT_APPEND in output


def commands(command=cli, path=("pyemu",)):
    """Yield all of them, with the words that call them."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


def examples(command):
    """The command lines in the help, without the parts meant for the shell."""
    inner = re.compile(r'"\$\((pyemu [^)]*)\)"')
    for line in (command.epilog or "").splitlines():
        lines = [*inner.findall(line), *re.findall(r"^  (?:\w+=\S+ )?(pyemu [^>]*)", inner.sub("Image", line))]
        yield from (shlex.split(one) for one in lines if "COMMAND" not in one)


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: " ".join(value) if type(value) is tuple else ""
)
def test_help_has_examples_that_work(path, command, pyemu):
    status, text, _ = pyemu(*path[1:], "--help")
    assert status == 0
    assert "Examples:" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    for _, *words in examples(command):
        called = cli
        context = click.Context(cli)
        while words and isinstance(called, click.Group) and called.get_command(context, words[0]):
            called = called.get_command(context, words.pop(0))
        called.make_context(called.name, words)  # raises if they are wrong


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["Image", "rootfs.cpio"]),
        (("--kernel",), ["Image"]),
        (("--rootfs",), ["rootfs.cpio"]),
        (("--vmlinux",), ["vmlinux"]),
    ],
)
def test_guest_path_prints_a_line_for_each_file(pyemu, monkeypatch, tmp_path, options, names):
    monkeypatch.setattr(guest, "files", lambda *_: (tmp_path / "Image", tmp_path / "rootfs.cpio"))
    assert pyemu("guest", "path", *options)[1:] == ("".join(f"{tmp_path / name}\n" for name in names), "")


def test_the_example_of_guest_path_works_in_a_cache_with_spaces(tmp_path, monkeypatch):
    """Run it as a shell does; it ends at once, because the root file system does not exist."""
    cache = tmp_path / "a cache"
    monkeypatch.setenv("PYEMU_CACHE", str(cache))
    for name, file in ((inputs.kernel_name(), "Image"), (inputs.rootfs_name(), "rootfs.cpio")):
        (cache / name).mkdir(parents=True)
        tiny.write_image(cache / name / file, tiny.POWER_OFF)
    line = next(line for line in guest_group.epilog.splitlines() if "guest path" in line)
    pyemu = f'pyemu() {{ cd {ROOT} && {sys.executable} -m emu "$@"; }}'
    run = subprocess.run(["/bin/sh", "-c", f"{pyemu}; {line}"], capture_output=True, text=True, check=False)
    assert run.stderr.startswith("pyemu: error: rootfs.cpio: "), run.stderr


def test_help_lists_commands_in_whole_sentences(pyemu):
    for path, command in commands():
        if isinstance(command, click.Group):
            assert "..." not in pyemu(*path[1:], "--help")[1].partition("Commands:")[2].partition("Examples")[0]


@pytest.mark.parametrize("group", [[], ["audio"], ["guest"]], ids=str)
def test_a_group_alone_shows_its_help(pyemu, group):
    status, output, error = pyemu(*group)
    assert (status, output) == (2, "")
    assert error.startswith("Usage: pyemu")
    assert error.rstrip().splitlines()[-1].startswith("      ")  # an example


@pytest.mark.parametrize(
    ("option", "names"), [("--help", ("unicorn", "numpy")), ("--version", ("emu.machine", "numpy"))]
)
def test_version_and_help_import_no_machine(option, names):
    code = f"import sys, atexit; atexit.register(lambda: print([m for m in {names} if m in sys.modules]))"
    command = [sys.executable, "-c", f"{code}; from emu.cli import main; main([{option!r}])"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("setting", "part"), [("", "with its native part"), ("off", "without its native part: PYEMU_NATIVE=off")]
)
def test_version_says_whether_the_native_part_is_in_use(pyemu, monkeypatch, setting, part):
    monkeypatch.setenv("PYEMU_NATIVE", setting)
    status, output, _ = pyemu("--version")
    assert (status, output.partition(", ")[2]) == (0, f"{part}\n")


def test_boot_imports_neither_numpy_nor_sounddevice(kernel, tmp_path):
    names = ("numpy", "sounddevice", "asyncio", "importlib.metadata", "emu.guest", "emu.shell")
    code = f"import sys, atexit; atexit.register(lambda: print([m for m in {names} if m in sys.modules]))"
    arguments = ["boot", str(kernel(tiny.POWER_OFF)), "--audio", f"wav:{tmp_path / 'out.wav'}"]
    command = [sys.executable, "-c", f"{code}; from emu.cli import main; main({arguments!r})"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert run.stdout == "[]\n"


# ---------------------------------------------------------------- wrong usage: a line, status 2


WRONG = {
    "no such command": (["run"], "No such command 'run'; to switch on a machine: pyemu boot .*see pyemu --help"),
    "no boot": (["--exec", "true"], "No such option '--exec'; to switch on a machine: pyemu boot "),
    "no such option": (["boot", "--colour"], "--colour.*[Ss]ee pyemu boot --help"),
    "no value": (["boot", "--exec"], "'--exec' requires an argument; see pyemu boot --help"),
    "no such subcommand": (["audio", "chek"], "Did you mean 'check'\\? See pyemu audio --help"),
    "a shell that is not known": (["completion", "tcsh"], "Invalid value for 'SHELL': 'tcsh' is not one of "),
    "no shell": (["completion"], "Missing argument.* bash, zsh, fish; see pyemu completion --help"),
    "no such file": (["boot", "{tmp}/nothing"], "nothing: .*No such file"),
    "a directory": (["boot", "{tmp}"], "directory"),
    "not a kernel": (["boot", "{disk}"], "not a RISC-V kernel"),
    "swapped": (["boot", "{cpio}", "{image}"], "IMAGE ROOTFS"),
    "too many files": (["boot", "{image}", "{cpio}", "{cpio}"], "unexpected extra argument"),
    "little memory": (["boot", "{image}", "-m", "1M"], "memory"),
    "much memory": (["boot", "{image}", "-m", "999999G"], "memory"),
    "no memory": (["boot", "{image}", "-m", "lots"], "'lots' is not a size"),
    "negative memory": (["boot", "{image}", "-m", "-5"], "'-5' is not a size"),
    "a seed that is no number": (["boot", "{image}", "--seed", "chance"], "'chance'"),
    "no such clock": (["boot", "{image}", "--clock", "sun"], "'sun'"),
    "no such backend": (["boot", "{image}", "--audio", "tape"], "tape"),
    "a file for a backend": (["boot", "{image}", "--audio", "out.wav"], "did you mean wav:out.wav"),
    "no such option of a backend": (["boot", "{image}", "--audio", "null,latency=3"], "there are log=, streams="),
    "unwritable sound": (["boot", "{image}", "--audio", "wav:{tmp}/no/out.wav"], "out.wav: No such file"),
    "no such disk": (["boot", "{image}", "--disk", "{tmp}/nothing"], "truncate -s 64M {tmp}/nothing"),
    "an empty disk": (["boot", "{image}", "--disk", "{tmp}/empty"], "truncate -s 64M {tmp}/empty"),
    "a disk twice": (["boot", "{image}", "--disk", "{disk}", "--disk", "{disk}"], "in use"),
    "a disk option": (["boot", "{image}", "--disk", "{disk},fast"], "'fast'"),
    "many disks": (["boot", "{image}", *["--disk", "{disk},readonly"] * 14], "room for 16"),
    "no such network": (["boot", "{image}", "--net", "tap0"], "--net tap0: no such network; use user"),
    "a network with time that jumps": (["boot", "{image}", "--clock", "warp", "--net", "user"], "time does not jump"),
    "a network's log": (["boot", "{image}", "--net", "socket:{tmp}/s,log={tmp}/no/log"], "log cannot be written"),
    "no such firmware": (["boot", "{image}", "--bios", "{tmp}/nothing"], "nothing"),
    "no time": (["boot", "{image}", "--timeout", "0"], "--timeout"),
    "not a number": (["boot", "{image}", "--timeout", "nan"], "--timeout"),
    "endless time": (["boot", "{image}", "--timeout", "inf"], "--timeout"),
    "unwritable dtb": (["boot", "{image}", "--dump-dtb", "{tmp}/no/dtb"], "dtb cannot be written"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_usage(arguments, message, kernel, pyemu, tmp_path):
    places = {"tmp": tmp_path, "image": kernel(tiny.SPIN), "disk": tmp_path / "disk", "cpio": tmp_path / "cpio"}
    (tmp_path / "empty").touch()
    places["disk"].write_bytes(bytes(1 << 20))
    places["cpio"].write_bytes(b"070701" + bytes(104) + b"TRAILER!!!\0")
    status, output, error = pyemu(*(argument.format(**places) for argument in arguments))
    assert (status, output) == (2, "")
    assert re.fullmatch(f"pyemu: error: [^\n]*(?:{message.format(**places)})[^\n]*\n", error)


def test_debug_shows_where_it_comes_from(pyemu, tmp_path):
    status, _, error = pyemu("boot", tmp_path, "--debug")
    assert status == 2
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("pyemu: error: ")
