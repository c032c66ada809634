"""The files of a sweep, on computers that lack them."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices.errors import PyemuError
from emu.fleet import keeper, sweep
from emu.fleet.files import File, find, keep, pack
from tests.emu import tiny
from tests.emu.fleet import subjects

NOWHERE = "/nowhere/file"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fleet"


@pytest.fixture
def file(tmp_path):
    """A file with holes, and one of them at its end."""
    path = tmp_path / "file"
    with path.open("wb") as opened:
        opened.write(os.urandom(100_000))
        opened.seek(8 << 20)
        opened.write(b"after a hole")
        opened.truncate(16 << 20)
    return File.of(str(path))


def test_a_file_is_found_where_it_comes_from(file):
    assert find(file) == file.path


def test_a_file_that_was_brought_is_the_same_holes_included(file, cache):
    elsewhere = file._replace(path=NOWHERE)
    assert find(elsewhere) is None
    keep(elsewhere, pack(file))
    kept = find(elsewhere)
    assert kept == str(cache / file.sha256)
    assert Path(kept).read_bytes() == Path(file.path).read_bytes()
    assert Path(kept).stat().st_blocks * 512 <= 4 << 20
    assert len(pack(file)) < 300_000


def test_workers_that_bring_one_file_at_once_do_not_disturb_each_other(file, cache):
    elsewhere = file._replace(path=NOWHERE)
    packed = pack(file)
    keep(elsewhere, packed)
    with ThreadPoolExecutor(4) as workers:
        bringing = [workers.submit(keep, elsewhere, packed) for _ in range(40)]
        while not all(worker.done() for worker in bringing):
            assert find(elsewhere) is not None, "it was gone for a moment"
    assert [worker.result() for worker in bringing] == [None] * 40
    assert [path.name for path in cache.iterdir()] == [file.sha256]


def test_what_killed_workers_have_left_is_forgotten_after_a_month(file, cache):
    elsewhere = file._replace(path=NOWHERE)
    keep(elsewhere, pack(file))
    left = cache / "tmp12345678"
    left.touch()
    for path in (left, Path(find(elsewhere))):
        os.utime(path, times=(0, 0))
    assert find(elsewhere) is not None  # which uses it
    keep(elsewhere._replace(sha256=hashlib.sha256(b"").hexdigest()), pack(File.of("/dev/null")))
    assert sorted(path.name for path in cache.iterdir()) == sorted([file.sha256, hashlib.sha256(b"").hexdigest()])


def test_other_contents_are_refused(file, cache):
    whole = pack(file)
    Path(file.path).write_bytes(b"changed")
    for packed in (pack(file), whole[:1000], b""):
        with pytest.raises(PyemuError, match="changed"):
            keep(file, packed)
    assert list(cache.iterdir()) == []


def test_what_was_changed_is_not_that_file(file):
    Path(file.path).write_bytes(b"changed")
    assert find(file) is None


def test_workers_that_lack_the_kernel_get_it_with_a_case(tmp_path, cache, monkeypatch):
    image = tiny.write_image(tmp_path / "Image", tiny.say("hello\n"), tiny.POWER_OFF)
    brought = []
    monkeypatch.setattr(keeper, "find", lambda file: find(file._replace(path=NOWHERE)))
    monkeypatch.setattr(keeper, "keep", lambda file, packed: (brought.append(file), keep(file, packed)))
    with ThreadPoolExecutor(2) as executor:
        cases = ({"n": n} for n in range(20))
        outcomes = list(sweep(subjects.prints, cases, executor, kernel=image, memory="16M"))
    assert sorted(outcome.case["n"] for outcome in outcomes) == list(range(20))
    assert {outcome.error for outcome in outcomes} == {None}
    assert {outcome.value[0] for outcome in outcomes} == {b"hello\n"}
    assert [path.name for path in cache.iterdir()] == [brought[0].sha256]
    assert len(brought) <= 4
    assert f"--kernel {image}" in outcomes[0].repeat
