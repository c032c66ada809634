"""The fixtures of the guest tests, for checks that depend on a quiet machine:

python -m pytest tests/benchmarks/host/host_sound.py
"""

from tests.guest.conftest import boot, guest_files

__all__ = ["boot", "guest_files"]
