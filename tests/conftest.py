"""For all tests: random cases are the same ones at every run, so that a change fails because of what it changed.

New ones: ``pytest --hypothesis-profile=default``.
"""

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
