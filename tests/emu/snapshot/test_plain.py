"""States through JSON and back, and what is none."""

from typing import Annotated, Any, TypedDict

import pytest

from devices.errors import UsageError
from devices.state import I64, U8, U64, Moment, Ns
from emu.snapshot.plain import decode, encode, type_of


class Inner(TypedDict):
    """A part of a state."""

    data: bytes
    on: bool


class Outer(TypedDict):
    """A state with every kind of field."""

    octet: U8
    word: U64
    offset: I64
    name: str
    inner: list[Inner]
    due: Moment | None
    latched: U8 | None
    pair: tuple[U8, Ns]
    by_name: dict[str, U8]


STATE: Outer = {
    "octet": 255,
    "word": (1 << 64) - 1,
    "offset": -(1 << 63),
    "name": "\u266b",
    "inner": [{"data": bytes(range(256)), "on": True}, {"data": b"", "on": False}],
    "due": (5, 6),
    "latched": 255,
    "pair": (1, 2),
    "by_name": {"a": 1},
}


def changed(path: list[Any], value: Any) -> bytes:
    """The state with another value somewhere."""
    import json  # noqa: PLC0415

    state = json.loads(encode(STATE))
    inner = state
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(state).encode()


def test_a_state_comes_back_as_it_was() -> None:
    assert decode(encode(STATE), Outer) == STATE
    for field in ("due", "latched"):
        assert decode(changed([field], None), Outer) == {**STATE, field: None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["octet"], 256),
        (["octet"], -1),
        (["octet"], True),
        (["octet"], 1.0),
        (["octet"], "1"),
        (["word"], 1 << 64),
        (["offset"], -(1 << 63) - 1),
        (["offset"], 1 << 63),
        (["name"], None),
        (["name"], 1),
        (["inner"], {}),
        (["inner", 0], []),
        (["inner", 0, "data"], "?"),
        (["inner", 0, "data"], "AA==AA=="),
        (["inner", 0, "data"], "\u266b"),
        (["inner", 0, "data"], [1]),
        (["inner", 0, "on"], 1),
        (["inner", 0, "more"], 1),
        (["due"], [5]),
        (["due"], [5, 6, 7]),
        (["due"], 5),
        (["latched"], 256),
        (["pair"], [1, None]),
        (["by_name"], [1]),
        (["by_name", "b"], 256),
    ],
)
def test_what_its_type_does_not_say_is_refused(path: list[Any], value: object) -> None:
    with pytest.raises(UsageError, match="the snapshot is damaged"):
        decode(changed(path, value), Outer)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"octet": NaN}'])
def test_what_is_no_state_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="the snapshot is damaged"):
        decode(data, Outer)


def test_the_type_is_that_of_the_annotation() -> None:
    class Part:
        def state(self) -> Outer:
            return STATE

        def restore(self, state: Outer) -> None:
            pass

    assert type_of(Part()) is Outer
    assert Annotated[int, 8] == U8
