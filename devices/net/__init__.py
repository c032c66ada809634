"""What a network card's cable leads to: the backends of ``--net`` and their common contract.

Backends are loaded when they are used first; a machine without a card loads none of this.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devices.net.base import Card, NetBackend
    from devices.net.spec import parse
    from devices.net.wire import Wire

__all__ = ["Card", "NetBackend", "Wire", "parse"]

_HOME = {"Card": "base", "NetBackend": "base", "parse": "spec", "Wire": "wire"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
