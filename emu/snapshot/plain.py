"""States as JSON, and back: nothing is believed that their types do not say (see devices/state.py)."""

import json
from base64 import b64decode, b64encode
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from devices.state import Stateful, check

__all__ = ["decode", "encode", "type_of"]


def type_of(part: Stateful) -> Any:
    """Return the type of a part's state."""
    return get_type_hints(part.state, include_extras=True)["return"]


def encode(state: Any) -> bytes:
    """Return a state as JSON; bytes become texts, in base 64."""
    return json.dumps(state, default=lambda data: b64encode(data).decode(), separators=(",", ":")).encode()


def decode(data: bytes, kind: Any, name: str = "it") -> Any:
    """Return the state of type ``kind`` that was encoded, and is called ``name``; raises UsageError if it is none."""
    try:
        return parse(json.loads(data), kind, name)
    except (ValueError, RecursionError):
        return check(False, name)


def parse(value: Any, kind: Any, name: str) -> Any:
    """Return ``value``, which is out of a JSON file, as one of type ``kind``; raises UsageError if it is none."""
    if kind is Any:  # to be parsed when its type is known
        return value
    if is_typeddict(kind):
        fields = get_type_hints(kind, include_extras=True)
        check(isinstance(value, dict) and value.keys() == fields.keys(), f"the fields of {name}")
        return {field: parse(value[field], type_, f"{name}.{field}") for field, type_ in fields.items()}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:  # ``Annotated[...] | None`` is the former
        (one,) = set(arguments) - {NoneType}
        return None if value is None else parse(value, one, name)
    return _parse_plain(value, kind, name) if origin in {None, Annotated} else _parse_many(value, kind, name)


def _parse_many(value: Any, kind: Any, name: str) -> Any:
    origin, types = get_origin(kind), get_args(kind)
    if origin is dict:
        check(isinstance(value, dict), name)
        return {key: parse(one, types[1], f"{name}[]") for key, one in value.items()}
    check(isinstance(value, list), name)
    if origin is list:
        return [parse(one, types[0], f"{name}[]") for one in value]
    assert origin is tuple, f"a state cannot have a {kind}"
    check(len(value) == len(types), name)
    return tuple(parse(one, type_, f"{name}[]") for one, type_ in zip(value, types, strict=True))


def _parse_plain(value: Any, kind: Any, name: str) -> Any:
    if get_origin(kind) is Annotated:
        check(type(value) is int and _fits(value, get_args(kind)[1]), name)
    elif kind is bytes:
        try:
            return b64decode(value, validate=True)
        except (ValueError, TypeError):
            check(False, name)
    else:
        assert kind in {bool, str}, f"a state cannot have a {kind}"
        check(type(value) is kind, name)
    return value


def _fits(value: int, bits: int) -> bool:
    return 0 <= value < 1 << bits if bits > 0 else -1 << -bits - 1 <= value < 1 << -bits - 1
