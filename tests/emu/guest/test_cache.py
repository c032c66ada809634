"""The build cache: each part is built once, nothing unfinished has a final name, and work survives interruptions."""

import fcntl
import os
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from devices.errors import PyemuError
from emu.guest import building, cache, job
from emu.guest.job import CommandError, Job


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def quiet(line: str) -> None:
    pass


def write_hello(job: Job, out: Path) -> None:
    (out / "hello").write_text("hello")


def refuse(job: Job, out: Path) -> None:
    raise AssertionError("built again")


def test_directory_prefers_pyemu_cache_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    assert cache.directory() == root
    monkeypatch.delenv("PYEMU_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.directory() == Path("/xdg/pyemu")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.directory() == Path("/home/somebody/.cache/pyemu")


def test_obtain_builds_once_and_leaves_only_the_result(root: Path) -> None:
    building.obtain(root / "part", write_hello, quiet)
    assert (root / "part" / "hello").read_text() == "hello"
    building.obtain(root / "part", refuse, quiet)
    assert [path.name for path in root.iterdir()] == ["part"]


def test_obtain_gives_an_interrupted_build_its_work_back(root: Path) -> None:
    def interrupted(job: Job, out: Path) -> None:
        (job.work / "progress").touch()
        (out / "half").touch()
        raise KeyboardInterrupt

    def resumed(job: Job, out: Path) -> None:
        assert (job.work / "progress").exists()
        write_hello(job, out)

    with pytest.raises(KeyboardInterrupt):
        building.obtain(root / "part", interrupted, quiet)
    assert not (root / "part").exists()
    building.obtain(root / "part", resumed, quiet)
    assert [path.name for path in (root / "part").iterdir()] == ["hello"]


def test_obtain_waits_for_another_build_and_takes_its_result(root: Path) -> None:
    waiting = threading.Event()
    said: list[str] = []

    def progress(line: str) -> None:
        said.append(line)
        waiting.set()

    with building._locked(root / "part.lock", quiet):
        second = threading.Thread(target=building.obtain, args=(root / "part", refuse, progress))
        second.start()
        waiting.wait()
        (root / "part").mkdir()
    second.join()
    assert said == ["waiting for another build"]


def test_who_comes_when_another_has_just_finished_leaves_nothing_behind(root: Path) -> None:
    """It has looked before that, and takes the lock after it."""

    class Late(type(root)):
        looks = 0

        def is_dir(self) -> bool:
            if self.name == "part":
                Late.looks += 1
            return super().is_dir() and (self.name != "part" or Late.looks > 1)

    (root / "part").mkdir(parents=True)
    building.obtain(Late(root / "part"), refuse, quiet)
    assert Late.looks == 2
    assert [path.name for path in root.iterdir()] == ["part"]


def test_a_lock_that_was_removed_keeps_nobody_out_and_is_taken_again(root: Path) -> None:
    """Else two would build in one directory: who has waited for it, and who has come later and made it anew."""
    waiting = threading.Semaphore(0)
    with ExitStack() as first:
        first.enter_context(building._locked(root / "part.lock", quiet))
        arguments = (root / "part", refuse, lambda _line: waiting.release())
        second = threading.Thread(target=building.obtain, args=arguments, daemon=True)
        second.start()
        waiting.acquire()
        (root / "part.lock").unlink()
        with building._locked(root / "part.lock", quiet):
            first.close()
            waiting.acquire()  # for the new one
            (root / "part").mkdir()
        second.join()


def test_commands_hold_the_lock_too(tmp_path: Path) -> None:
    """A killed pyemu leaves its make running; a second pyemu must not work in the same tree meanwhile."""
    path, end = tmp_path / "lock", tmp_path / "end"
    os.mkfifo(end)
    with building._locked(path, quiet) as lock:
        Job(tmp_path, quiet, lock).run("sh", "-c", f"cat {end} >/dev/null 2>&1 &")
    with path.open("w") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end.write_bytes(b"")
        fcntl.flock(file, fcntl.LOCK_EX)  # until the last of them is gone


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
def test_who_is_interrupted_leaves_no_command_behind(tmp_path: Path, stubborn: str) -> None:
    """Nor while anything that the command started is left: the last process releases the lock."""

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "lock"
    with building._locked(path, quiet) as lock, pytest.raises(KeyboardInterrupt):
        Job(tmp_path, quiet, lock).run("sh", "-c", f"{stubborn}sleep 1000 & echo begun; wait; wait", on_line=interrupt)
    # A killed process needs a moment to end, and nobody here is its parent.
    subprocess.run(["flock", path, "true"], check=True)


def test_a_command_that_is_to_end_may_clear_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like make, which removes unfinished files."""
    monkeypatch.setattr(job, "_GRACE_S", 1000.0)  # on a busy host it may take long; its output is closed at the end

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    half = tmp_path / "half"
    script = f"trap 'rm {half}; exit 1' TERM; touch {half}; echo begun; sleep 1000 >/dev/null 2>&1 & wait"
    with building._locked(tmp_path / "lock", quiet) as lock, pytest.raises(KeyboardInterrupt):
        Job(tmp_path, quiet, lock).run("sh", "-c", script, on_line=interrupt)
    assert not half.exists()


def test_obtain_invalid_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PyemuError, match="PYEMU_CACHE chooses another place"):
        building.obtain(tmp_path / "file" / "part", write_hello, quiet)


def test_what_nobody_has_used_for_a_month_is_forgotten(root: Path) -> None:
    month = 30 * 86400
    for name, age in (("old", month + 60), ("used", month + 60), ("recent", month - 60)):
        (root / name).mkdir(parents=True)
        (root / name / "file").touch()
        (root / f"{name}.lock").touch()
        for path in (root / name, root / f"{name}.lock"):
            os.utime(path, times=(time.time() - age,) * 2)
    changed = (root / "used").stat().st_mtime_ns
    cache.use(root / "used")
    cache.use(root / "nothing")
    cache.forget(root.iterdir())
    assert sorted(path.name for path in root.iterdir()) == ["recent", "recent.lock", "used"]
    assert (root / "used").stat().st_mtime_ns == changed  # by which a file's checksum is known


def test_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = cache.digest(tmp_path)
    assert cache.digest(tmp_path) == before
    (tmp_path / "a").write_text("2")
    changed = cache.digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({before, changed, cache.digest(tmp_path), cache.digest("2")}) == 4


def test_run_returns_output_and_passes_each_line_on(tmp_path: Path) -> None:
    lines: list[str] = []
    with building._locked(tmp_path / "lock", quiet) as lock:
        output = Job(tmp_path, quiet, lock).run("printf", "one\ntwo\n", on_line=lines.append)
    assert output == "one\ntwo\n"
    assert lines == ["one\n", "two\n"]


def test_run_failing_names_the_reason_and_keeps_the_log(tmp_path: Path) -> None:
    work = tmp_path / "part.work"
    work.mkdir()
    with building._locked(tmp_path / "lock", quiet) as lock, pytest.raises(CommandError, match=r"status 3.*no luck"):
        Job(work, quiet, lock).run("sh", "-c", "echo no luck; exit 3")
    assert "no luck" in (tmp_path / "part.log").read_text()
