"""The pytest plugin: test a sound program, or a driver, in a booted machine.

    import numpy as np

    def test_the_tone_is_440_hz(machine):
        status, output = machine.console.run("aplay -D hw:0,0 /root/tone.wav")
        assert status == 0, output
        spectrum = np.abs(np.fft.rfft(machine.audio.frames[:48000, 0]))
        assert spectrum.argmax() == 440

``machine``
    A Machine at its shell, on the warp clock. It boots once and all tests of the session share it, so whatever one
    leaves in the guest (files, processes, mixer settings) is there for the next. Each test has its own sound, however:
    ``audio.frames`` is what was played during it. After a failed test, and when there is no shell any longer (the guest
    was switched off, has panicked, or runs a program that waits for input), the next test gets a new machine.

``fresh_machine``
    Makes machines for this test only: ``fresh_machine(memory="64M", disk="data.img,snapshot")``, with any argument of
    Machine, for a clean or special guest. The default guest, under warp, goes on from a snapshot of it at its shell,
    made once and kept in pyemu's cache, for all workers of pytest-xdist, too: that takes 30 ms. With ``boot=True``, or
    what a guest that has booted can't be given (disks, shares, network cards, bios, more streams of sound), the
    machine is only switched on: ``console.run`` waits for the shell, and a kernel without one can be used with
    ``console.expect``. Other kernels are booted, too, unless ``ready=True`` says that they have a shell.

In the ini file, for both fixtures (paths are relative to the root directory):

    pyemu_kernel, pyemu_initrd   instead of the default guest's, which is built on first use
    pyemu_overlay                a directory whose files are added to the guest's root file system
    pyemu_memory, pyemu_append   RAM, the kernel's command line
    pyemu_disks                  disks, one per line: FILE[,readonly][,snapshot]
    pyemu_clock                  warp or host
    pyemu_seed                   where all chance comes from (0 under warp)
    pyemu_ready                  true: ``fresh_machine`` need not boot pyemu_kernel, which has a shell
    pyemu_restore                true: ``machine`` is for each test what it was when it had booted

Under pytest-xdist (``pytest -n 4``), each worker has a ``machine`` of its own, and all of them go on from one snapshot,
which the first to need it makes while the others wait (if it is killed meanwhile, another takes over). What a failed
test leaves is in its worker's own folder. A disk is for one machine at a time; FILE,snapshot and FILE,readonly are for
all.

When a test fails, its report shows the end of its console output, and where to find the WAV file and the picture of
it: waveform, spectrogram and defects, and for a fresh machine how late each period was. Pictures need matplotlib:
pip install 'pyemu-riscv[plot]'. Under warp, it has the command that repeats the machine's run, to the bit: run.pyemu is
its recording, and disks that are not snapshots must be as they were before.
"""

import contextlib
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devices.errors import MissingPackageError, PyemuError

if TYPE_CHECKING:
    from emu.machine import Machine
    from emu.snapshot.snapshot import Snapshot

__all__ = ["SharedMachine", "fresh_machine", "machine", "pyemu_shared", "pytest_addoption", "pytest_runtest_makereport"]

_TAIL_LINES = 50
#: Real time after which a shell that another test has used is abandoned.
_PROMPTLY_S = 5.0
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
#: A test's machines, with how much each had printed when it began; whether it has failed.
_MACHINES: "pytest.StashKey[list[tuple[Machine, int]]]" = pytest.StashKey()
_FAILED: "pytest.StashKey[bool]" = pytest.StashKey()

_OPTIONS = {
    "kernel": "the kernel's Image, instead of the default guest's",
    "initrd": "the initramfs, instead of the default guest's",
    "overlay": "a directory of files to put over the initramfs",
    "memory": "RAM, like 512M",
    "append": "the kernel's command line",
    "clock": "warp (default) or host",
    "seed": "where all chance comes from, a whole number",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings of the ini file."""
    for name, help_ in _OPTIONS.items():
        parser.addini(f"pyemu_{name}", f"machine: {help_}", default="")
    parser.addini("pyemu_ready", "fresh_machine: pyemu_kernel has a shell", "bool", default=False)
    parser.addini("pyemu_restore", "machine: is restored before each test", "bool", default=False)
    parser.addini("pyemu_disks", "machine: FILE[,readonly][,snapshot], one per line", "linelist", default=[])


def _settings(config: pytest.Config) -> dict[str, Any]:
    """Return Machine's arguments from the ini file."""
    settings = {name: config.getini(f"pyemu_{name}") for name in _OPTIONS}
    for name in ("kernel", "initrd", "overlay"):
        settings[name] = config.rootpath / settings[name] if settings[name] else None
    settings["clock"] = settings["clock"] or "warp"
    settings["disks"] = [str(config.rootpath / disk) for disk in config.getini("pyemu_disks")]
    settings = {name: value for name, value in settings.items() if value}
    if "seed" in settings:
        settings["seed"] = _whole_number(settings["seed"])
    return settings


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise pytest.UsageError(f"pyemu_seed: {text!r} is not a whole number") from None


def _switch_on(config: pytest.Config, folder: Path, **options: Any) -> "Machine":
    """Make a machine from the ini file's settings and ``options``, which take precedence.

    It is booted if ``boot`` says so, or if ``ready`` does not say that its kernel has a shell.
    """
    from emu.machine import Machine  # noqa: PLC0415 - pytest starts sooner where no machine is used

    options = _settings(config) | options
    boot, ready = (
        options.pop("boot", False),
        options.pop("ready", "kernel" not in options or config.getini("pyemu_ready")),
    )
    if "kernel" not in options:
        options["kernel"], rootfs = _default_guest(config)
        options.setdefault("initrd", rootfs)
    tree = options.pop("overlay", None)
    if tree is not None:
        from emu.testing.overlay import overlay  # noqa: PLC0415

        options["initrd"] = overlay(Path(options["initrd"]), Path(tree), folder / "initrd")
    if ready and not boot and _can_be_ready(options):
        options["kernel"] = _ready(config, options)
    if options["clock"] == "warp" and not {"record", "replay", "share", "shares", "net", "nets"} & options.keys():
        options["record"] = folder / "run.pyemu"
    machine = Machine(**options)
    if options.get("record") is not None:
        from emu.recording import Recorder  # noqa: PLC0415

        assert isinstance(machine.journal, Recorder)
        machine.journal.repeat = _repeating(machine, options)
    return machine


#: Of Machine's arguments, those that a guest that has booted can be given, and those that its snapshot is made for.
_LATER = {"clock", "seed", "output", "close_audio", "trace", "record", "audio"}
_SOONER = {"kernel", "initrd", "memory", "append"}


def _can_be_ready(options: dict[str, Any]) -> bool:
    """Whether a machine of these options can go on from a snapshot of the booted guest."""
    usual = getattr(options.get("audio"), "streams", (1, 1)) == (1, 1) and "streams=" not in str(options.get("audio"))
    return options["clock"] == "warp" and usual and options.keys() <= _LATER | _SOONER


def _ready(config: pytest.Config, options: dict[str, Any]) -> Path:
    """Return the snapshot, and leave what it was made for out of the ``options``."""
    from emu.snapshot.ready import ready  # noqa: PLC0415

    made_for = {name: options.pop(name) for name in _SOONER & options.keys()}
    kernel, initrd = made_for.pop("kernel"), made_for.pop("initrd", None)
    return ready(Path(kernel), None if initrd is None else Path(initrd), made_for, _reporter(config))


def _repeating(machine: "Machine", options: dict[str, Any]) -> str:
    """Return the command line that replays what ``machine``, which was made with ``options``, does."""
    from emu.recording.command import boot_line  # noqa: PLC0415

    disks = [*([options["disk"]] if options.get("disk") else []), *options.get("disks", ())]
    outputs, inputs = machine.audio.streams
    return boot_line(options["kernel"], options.get("initrd"), {
        "bios": options.get("bios"),
        "disk": [disk if isinstance(disk, str) else "DISK" for disk in disks],
        "audio": None if (outputs, inputs) == (1, 1) else f"null,streams={outputs}+{inputs}",
        "replay": options.get("record"),
    })  # fmt: skip


def _default_guest(config: pytest.Config) -> tuple[Path, Path]:
    """Return what ``pyemu guest path`` prints. A build shows its progress although pytest captures output."""
    from emu import guest  # noqa: PLC0415

    try:
        return guest.files(_reporter(config))
    except MissingPackageError as error:
        pytest.fail(f"pyemu: {error}", pytrace=False)  # one line says what to install; our traceback helps nobody


def _reporter(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows a line of progress although pytest captures output."""
    from emu.terminal.terminal import say  # noqa: PLC0415

    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if hasattr(config, "workerinput"):  # one of pytest-xdist's, whose reporter nobody hears; its stderr is the user's
        reporter = None

    def progress(line: str) -> None:
        with capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext():
            if reporter is not None:
                reporter.write_line(f"pyemu: {line}")
            else:
                say(line)

    return progress


class SharedMachine:
    """The session's machine: switched on at first use, and again after it was discarded or has become unusable.

    With ``restore``, it is always what it was at its first use.
    """

    def __init__(self, switch_on: "Callable[[], Machine]", *, restore: bool = False) -> None:
        self._switch_on, self._restore = switch_on, restore
        self._machine: Machine | None = None
        self._first: Snapshot | None = None

    def get(self, watch: "Callable[[Machine], None]") -> "Machine":
        """Return the machine, at its shell; ``watch(machine)`` is called before it runs."""
        if self._machine is not None and self._first is not None:
            self._machine.resume()
            self._machine.restore(self._first)
        elif self._machine is not None and not self._answers(self._machine):
            self.discard()
        if self._machine is None:
            self._machine = self._switch_on()
        watch(self._machine)
        self._machine.console.run("true")
        if self._restore and self._first is None:
            self._first = self._machine.snapshot()
        return self._machine

    def _answers(self, machine: "Machine") -> bool:
        """Whether there is still a shell, despite any power-off, panic or program that waits for input."""
        machine.resume()
        try:
            return machine.console.run("true", timeout=_PROMPTLY_S).status == 0
        except PyemuError:
            return False

    def discard(self) -> None:
        """Make the next test use a new one."""
        machine, self._machine, self._first = self._machine, None, None
        if machine is not None:
            machine.close()


@pytest.fixture(scope="session")
def pyemu_shared(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedMachine]:
    """The machine all tests share; use ``machine`` instead."""
    restore = bool(pytestconfig.getini("pyemu_restore"))
    options = {"record": None} if restore else {}  # a run that goes back is no recording
    shared = SharedMachine(
        lambda: _switch_on(pytestconfig, tmp_path_factory.mktemp("pyemu"), **options), restore=restore
    )
    yield shared
    shared.discard()


@pytest.fixture
def machine(request: pytest.FixtureRequest, pyemu_shared: SharedMachine, tmp_path: Path) -> "Iterator[Machine]":
    """A machine at its shell, shared by the session's tests; ``audio.frames`` is what it plays in this test."""
    from devices.audio import WavSink  # noqa: PLC0415

    machine = pyemu_shared.get(lambda machine: _watch(request.node, machine))
    machine.audio.switch(WavSink(tmp_path / "played.wav")).close()
    yield machine
    if request.node.stash.get(_FAILED, False):
        pyemu_shared.discard()


@pytest.fixture
def fresh_machine(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[Callable[..., Machine]]":
    """Make machines for this test only: ``fresh_machine(**options)``, with any argument of Machine."""
    from devices.audio import PeriodLog, WavSink  # noqa: PLC0415

    with contextlib.ExitStack() as machines:
        made = 0

        def make(**options: Any) -> "Machine":
            nonlocal made
            made += 1
            if "audio" not in options:
                sink = WavSink(tmp_path / f"played-{made}.wav")
                options["audio"] = PeriodLog(sink, sink.path.with_suffix(".jsonl"))
            folder = tmp_path / f"machine-{made}"
            folder.mkdir()
            machine = machines.enter_context(_switch_on(request.config, folder, **options))
            _watch(request.node, machine)
            return machine

        yield make


def _watch(item: pytest.Item, machine: "Machine") -> None:
    item.stash.setdefault(_MACHINES, []).append((machine, machine.console.printed))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the machines' output to the report of a failure."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    if report.failed and _MACHINES in item.stash:
        from emu.testing.evidence import kept, repeat  # noqa: PLC0415

        for machine, begun in item.stash[_MACHINES]:
            report.sections.append(("console of the machine", _tail(machine, begun)))
            report.sections.append(("sound of the machine", "\n".join(kept(machine.audio))))
            if machine.journal is not None:
                report.sections.append(("run of the machine", "\n".join(repeat(machine))))
    return report


def _tail(machine: "Machine", begun: int) -> str:
    """Return the last lines of what was printed since ``begun``."""
    machine.console.flush()
    lines = _TERMINAL.sub("", machine.console.since(begun).decode(errors="replace")).splitlines()
    left_out = len(lines) - _TAIL_LINES
    return "\n".join(lines if left_out <= 0 else [f"[... {left_out} lines before]", *lines[left_out:]])
