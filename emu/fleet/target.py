"""The test of a sweep, so that another process, perhaps on another computer, finds it: where it is, not what it is."""

import importlib
import importlib.util
import inspect
import linecache
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from devices.errors import UsageError

__all__ = ["Target", "Test"]

#: ``test(machine, **case)``; what it returns is its value, what it raises its failure.
Test = Callable[..., Any]


class Target(NamedTuple):
    """A function at the top level of a module that can be imported, or of a file, whose text goes with it."""

    name: str
    #: The module's name, or the file's path.
    place: str
    #: The file's text; None for a module.
    source: bytes | None
    #: Where it may import from, in addition.
    folders: tuple[str, ...]

    @classmethod
    def of(cls, test: "Test | Target") -> "Target":
        """Find ``test``; raises UsageError if other processes could not."""
        if isinstance(test, Target):
            return test
        if not isinstance(test, FunctionType) or not test.__qualname__.isidentifier():
            raise UsageError(f"{test!r} cannot be found by other processes; give a function at the top level of a file")
        folders = tuple(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100 - text to text; "" is this one
        if test.__module__ != "__main__":
            return cls(test.__name__, test.__module__, None, folders)
        path = getattr(sys.modules["__main__"], "__file__", None)
        if path is None:
            raise UsageError(f"{test.__name__} is in no file; write it into one, for other processes to find it")
        target = cls.in_file(Path(path), test.__name__)._replace(folders=folders)
        sys.modules.setdefault(target.module, sys.modules["__main__"])  # where pickle will look for its classes
        return target

    @classmethod
    def in_file(cls, path: Path, name: str) -> "Target":
        """Name a function of a Python file; raises UsageError if that cannot be read."""
        try:
            source = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        return cls(name, str(path), source, (str(path.absolute().parent),))

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Understand ``FILE.py:FUNCTION`` and ``MODULE:FUNCTION``; raises UsageError."""
        place, colon, name = text.rpartition(":")
        if not colon or not name.isidentifier():
            raise UsageError(f"{text!r} names no test; write it like tests/sound.py:plays")
        if place.endswith(".py") or "/" in place:
            return cls.in_file(Path(place), name)
        return cls(name, place, None, (str(Path.cwd()),))

    def __str__(self) -> str:
        return f"{self.place}:{self.name}"

    def text(self) -> bytes:
        """Return the text of the file that the function is in; empty if that is not to be had."""
        if self.source is not None:
            return self.source
        spec = importlib.util.find_spec(self.place)
        try:
            return Path(spec.origin).read_bytes() if spec is not None and spec.origin is not None else b""
        except OSError:
            return b""

    def load(self) -> Test:
        """Import the function; raises UsageError if it is not there, and whatever its module raises."""
        sys.path += [folder for folder in self.folders if folder not in sys.path]
        module = importlib.import_module(self.place) if self.source is None else self._run(self.source)
        test = getattr(module, self.name, None)
        if not inspect.isroutine(test):
            raise UsageError(f"{self.place} has no function {self.name}")
        return test

    @property
    def module(self) -> str:
        """The name of the module that a file becomes: not ``__main__``, so what it does as a script is left out."""
        return f"pyemu_sweep_{Path(self.place).stem}"

    def _run(self, source: bytes) -> object:
        """Make a module of the file's text."""
        spec = importlib.util.spec_from_loader(self.module, loader=None, origin=self.place)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__file__ = self.place
        text = importlib.util.decode_source(source)
        linecache.cache[self.place] = len(source), None, text.splitlines(keepends=True), self.place
        sys.modules[self.module] = module
        exec(compile(source, self.place, "exec"), module.__dict__)  # noqa: S102 - the user's own
        return module
