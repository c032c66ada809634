"""Dask as the engine of a sweep: its scheduler and its workers are anybody's, on any number of computers."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from devices.errors import MissingPackageError, UsageError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["connect"]

#: What goes wrong is told in a line, and by us.
_LOGGERS = ("distributed.client", "distributed.core", "distributed.utils", "tornado.application")


@contextlib.contextmanager
def connect(address: str, timeout: float = 30.0) -> Iterator[Executor]:
    """Provide the workers of the scheduler at ``address``, like tcp://host:8786, as an executor.

    Raises MissingPackageError without Dask, UsageError if the scheduler can't be reached.
    """
    try:
        from distributed import Client  # noqa: PLC0415 - slow to import, and an extra
    except ImportError as error:
        raise MissingPackageError("a cluster needs Dask: pip install 'pyemu-riscv[cluster]'") from error
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=timeout)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"there is no Dask scheduler at {address}: {error}") from error
    try:
        yield _Dask(client)
    finally:
        with contextlib.suppress(Exception):  # without its scheduler, it may raise anything
            client.close()


class _Dask(Executor):
    """The client's own executor, used on the client's thread: a client that loses its scheduler cancels all futures.

    Were there new ones meanwhile, it would fail at that, and nobody would hear of the others any more.
    """

    def __init__(self, client: "Client") -> None:
        self.client = client
        # A worker that is lost, with whatever it was doing, is none of a case's faults.
        self._executor = client.get_executor(pure=False)

    def submit(self, run: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Future[Any]":
        """Have a worker call ``run``."""
        future: Future[Any] = self.client.sync(_on_its_thread, self._executor.submit, run, *arguments, **named)
        return future


async def _on_its_thread(submit: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return submit(*arguments, **named)
