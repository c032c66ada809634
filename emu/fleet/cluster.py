"""Dask as the engine of a sweep: its scheduler and its workers are anybody's, on any number of computers."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor

from devices.errors import MissingPackageError, UsageError

__all__ = ["connect"]


@contextlib.contextmanager
def connect(address: str, timeout: float = 30.0) -> Iterator[Executor]:
    """Provide the workers of the scheduler at ``address``, like tcp://host:8786, as an executor.

    Raises MissingPackageError without Dask, UsageError if the scheduler can't be reached.
    """
    try:
        from distributed import Client  # noqa: PLC0415 - slow to import, and an extra
    except ImportError as error:
        raise MissingPackageError("a cluster needs Dask: pip install 'pyemu-riscv[cluster]'") from error
    try:
        client = Client(address, timeout=timeout)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"there is no Dask scheduler at {address}: {error}") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is told by us, in a line
    try:
        # A worker that is lost, with whatever it was doing, is none of a case's faults.
        yield client.get_executor(pure=False)
    finally:
        client.close()
