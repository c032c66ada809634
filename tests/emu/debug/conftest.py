"""Debuggers on a busy host."""

import pytest

from emu.debug import server


@pytest.fixture(autouse=True)
def _time_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between connecting and its first byte, a test may have to wait for the processor."""
    monkeypatch.setattr(server, "_FIRST_S", 3600.0)
