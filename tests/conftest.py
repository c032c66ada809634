"""For all tests: random cases are the same in every run, so that a change only fails because of what it changed.

New ones: ``pytest --hypothesis-profile=default``.
"""

import contextlib
import signal

from hypothesis import HealthCheck, settings

from emu.cpu.native import NotNativeError, install

settings.register_profile(  # however long a busy host takes
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

# Before any test makes an engine without it.
with contextlib.suppress(NotNativeError):
    install()

# Whoever runs the tests in the background of a shell, or under nohup, has some ignored, and every child after it.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
