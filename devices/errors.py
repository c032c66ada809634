"""Everything that can go wrong without being a bug in pyemu, as one small hierarchy.

    PyemuError              one clear line for the user, exit status 1
    ├── UsageError          a file or an option that cannot work, exit status 2
    ├── MachineError        the guest did something that ends the machine
    └── MissingPackageError a system package is missing; says which, and how to install it

This module imports nothing, so any package can use it.
"""

__all__ = ["MachineError", "MissingPackageError", "PyemuError", "UsageError"]


class PyemuError(Exception):
    """Base of all errors shown as one line, without a traceback."""

    exit_status = 1


class UsageError(PyemuError):
    """What the user gave (a file, an option) cannot work; the message says why and what to do."""

    exit_status = 2


class MachineError(PyemuError):
    """The machine cannot go on; the message says which hart, pc and cause."""


class MissingPackageError(PyemuError):
    """A system package is missing; the message names it and the command that installs it."""
