"""Two lives of the same parts: one goes straight on, in the other they are saved and rebuilt after each step."""

from collections.abc import Callable, Sequence
from random import Random
from types import NoneType, UnionType
from typing import Annotated, Any, Protocol, Self, Union, get_args, get_origin, get_type_hints, is_typeddict

from devices.errors import UsageError
from devices.state import Stateful
from emu.snapshot.plain import decode, encode, type_of
from tests.fakes import FakeEvents

__all__ = ["Life", "live_through_snapshots", "live_with_wrong_states"]


class Life(Protocol):
    """Some parts, what is around them, and what can happen to them."""

    events: FakeEvents

    @property
    def parts(self) -> Sequence[Stateful]:
        """What is saved and rebuilt."""
        ...

    def take_over(self, old: Self) -> None:
        """Let what is around the parts, like the levels of their lines, be what it is around ``old``'s."""
        ...

    def step(self, chance: Random) -> object:
        """Let something happen; return all that can be seen of it."""
        ...


def live_through_snapshots(make: Callable[[], Life], seed: int, steps: int = 400) -> None:
    """Live two lives, and see no difference; the new parts are fresh ones, or used ones."""
    straight, saved = make(), make()
    chances, used = (Random(seed), Random(seed)), Random(seed + 1)
    states: list[tuple[object, bytes]] = []
    for number in range(steps):
        assert saved.step(chances[0]) == straight.step(chances[1]), f"at step {number}"
        new = make()
        for _ in range(used.choice([0, 20])):
            new.step(used)
        new.events.follow(saved.events)
        new.take_over(saved)
        for old_part, new_part in zip(saved.parts, new.parts, strict=True):
            state = old_part.state()
            data = encode(state)
            decoded = decode(data, type_of(old_part))
            new_part.restore(decoded)
            assert new_part.state() == state
            states += [(state, data), (decoded, data)]
        saved = new
    assert all(encode(state) == data for state, data in states), "a state has changed with a part"


def live_with_wrong_states(make: Callable[[], Life], seed: int, states: int = 100) -> None:
    """Restore what is no part's state but has the right types: it is refused, or nothing bad happens."""
    chance = Random(seed)
    refused = 0
    for _ in range(states):
        life = make()
        for _ in range(20):
            life.step(chance)
        life.events.follow(life.events)
        try:
            for part in life.parts:
                part.restore(_altered(part.state(), type_of(part), chance))
        except UsageError:
            refused += 1
            continue
        for _ in range(20):
            life.step(chance)
    assert refused < states


def _altered(value: Any, kind: Any, chance: Random) -> Any:
    if is_typeddict(kind):
        fields = get_type_hints(kind, include_extras=True)
        changed = chance.sample(
            sorted(fields), chance.choice([1, 1, 2, len(fields)]) if len(fields) > 1 else len(fields)
        )
        return {
            name: _altered(value[name], type_, chance) if name in changed else value[name]
            for name, type_ in fields.items()
        }
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        (one,) = set(arguments) - {NoneType}
        return None if value is not None and chance.random() < 0.5 else _altered(value or _some(one), one, chance)
    if origin is tuple:
        return tuple(_altered(one, type_, chance) for one, type_ in zip(value, arguments, strict=True))
    if origin is list:
        altered = [_altered(one, arguments[0], chance) if chance.random() < 0.2 else one for one in value]
        return chance.choice([altered, altered, altered[1:], altered + altered[:1]])
    if origin is dict:
        return {name: _altered(one, arguments[1], chance) for name, one in value.items()}
    return _altered_plain(value, kind, chance)


def _altered_plain(value: Any, kind: Any, chance: Random) -> Any:
    if get_origin(kind) is Annotated:
        bits = get_args(kind)[1]
        least, most = (0, (1 << bits) - 1) if bits > 0 else (-1 << -bits - 1, (1 << -bits - 1) - 1)
        return chance.choice(
            [least, most, min(max(value + chance.choice([-1, 1]), least), most), chance.randint(least, most)]
        )
    if kind is bool:
        return not value
    return chance.choice([value[1:], value + value, value[:1]])


def _some(kind: Any) -> Any:
    """Return a value where there was none."""
    if is_typeddict(kind):
        return {name: _some(type_) for name, type_ in get_type_hints(kind, include_extras=True).items()}
    if get_origin(kind) in {Union, UnionType}:
        return None
    if get_origin(kind) is tuple:
        return tuple(_some(type_) for type_ in get_args(kind))
    return 0 if get_origin(kind) is Annotated else (get_origin(kind) or kind)()
