"""What a machine is given: what is refused, and what it gets where nothing is said."""

import pytest

from devices.audio import NullSink
from devices.errors import UsageError
from emu import arguments, guest
from emu.machine import Machine
from emu.timing.clock import ManualClock
from emu.timing.warp import PS_PER_BLOCK, WarpClock


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": 1.5}, r"^1\.5 is not a size; write it like 256M"),
        ({"trace": "snd"}, r"^trace='snd' cannot be used; give a Trace$"),
        ({"disk": 5}, r'^disk=5 cannot be used; give a text like "disk\.img,snapshot", or an opened disk$'),
        ({"disks": [None]}, r"^disk=None cannot be used"),
        ({"audio": 5}, r"^audio=5 cannot be used"),
        ({"clock": None}, r"^clock=None cannot be used"),
        ({"initrd": 5}, r"^initrd=5 cannot be used; give the name of a file$"),
        ({"append": 5}, r"^append=5 cannot be used; give a text$"),
        ({"seed": "1"}, r"^seed='1' cannot be used; give a whole number$"),
    ],
)
def test_arguments_of_a_wrong_kind(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Machine(**{"kernel": "Image", "memory": "32M", **arguments})  # type: ignore[arg-type]


def test_what_is_booted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default guest where nothing else is given; its command line is its kernel's, not another's."""
    monkeypatch.setattr(guest, "files", lambda: ("Image", "rootfs.cpio"))
    default, own = arguments.GUEST_APPEND, arguments.DEFAULT_APPEND
    usual = 256 << 20

    def origin(*given: object) -> tuple[object, ...]:
        return tuple(arguments.origin(*given))  # type: ignore[arg-type]

    assert origin(None, None, None, None, None) == ("Image", "rootfs.cpio", None, usual, default, None)
    assert origin(None, "my.cpio", None, "64M", "quiet") == ("Image", "my.cpio", None, 64 << 20, "quiet", None)
    assert origin("vmlinux", None, None, None, None) == ("vmlinux", None, None, usual, own, None)
    assert origin(None, None, "fw.bin", None, None) == (None, None, "fw.bin", usual, own, None)


def test_where_chance_comes_from() -> None:
    def seed_and_speed(*given: object) -> tuple[int | None, int | None]:
        clock, chance = arguments.time_and_chance(*given)  # type: ignore[arg-type]
        return chance.seed, clock.ps_per_block if isinstance(clock, WarpClock) else None

    assert seed_and_speed("host", None) == (None, None)
    assert seed_and_speed("host", 3) == seed_and_speed(ManualClock(), 3) == (3, None)
    assert seed_and_speed("warp", None) == seed_and_speed("warp", 0) == (0, PS_PER_BLOCK)
    assert seed_and_speed("warp", 3)[1] != PS_PER_BLOCK
    assert seed_and_speed(WarpClock(2_000), 3) == (3, 2_000)


def test_what_is_open_is_kept() -> None:
    sink = NullSink()
    assert arguments.open_audio(sink, real_time=True) is sink
    assert isinstance(arguments.open_audio(None, real_time=True), NullSink)
