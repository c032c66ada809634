"""The guest tests' fixtures, for checks that need a quiet machine:

python -m pytest -s tests/benchmarks/host/host_sound.py --seconds 60
"""

import pytest

from tests.guest.conftest import boot, guest_files

__all__ = ["boot", "guest_files"]


def pytest_addoption(parser):
    parser.addoption("--seconds", type=float, default=10.0, help="how long a tone to play and to record")


@pytest.fixture
def seconds(request):
    return request.config.getoption("seconds")
