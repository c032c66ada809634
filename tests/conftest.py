"""For all tests: random cases are the same ones at every run, so that a change fails because of what it changed.

New ones: ``pytest --hypothesis-profile=default``.
"""

import contextlib

from hypothesis import settings

from emu.cpu.native import NotNativeError, install

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

# Before any test makes an engine without it.
with contextlib.suppress(NotNativeError):
    install()
