"""The default guest under the warp clock: the same run every time, to the bit."""

from tests.benchmarks.repeat import busy, session


def test_a_run_repeats_itself_whatever_the_host_does(tmp_path):
    """Guest time, console, sound, disk and trace; beside other processes, and without the native part."""
    alone = session(tmp_path)
    with busy(2):
        assert session(tmp_path) == alone


def test_and_without_the_native_part(tmp_path, monkeypatch):
    with_it = session(tmp_path)
    monkeypatch.setenv("PYEMU_NATIVE", "off")
    assert session(tmp_path) == with_it


def test_another_seed_is_another_run_that_repeats_itself(tmp_path):
    first, again, other = (session(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.console != other.console
    assert first.disk != other.disk
