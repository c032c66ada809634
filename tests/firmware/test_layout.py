from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.errors import UsageError
from firmware.layout import DTB_SPACE, place

MIB = 1 << 20
BASE = 0x8000_0000


def ram(mib: int) -> range:
    return range(BASE, BASE + mib * MIB)


def kernel(size: int = 5 * MIB) -> range:
    return range(BASE + 2 * MIB, BASE + 2 * MIB + size)


def test_above_the_kernel_and_high() -> None:
    layout = place(ram(256), kernel(), 3 * MIB + 1)
    assert layout.dtb == 0x9000_0000 - DTB_SPACE
    assert layout.initrd is not None
    assert len(layout.initrd) == 3 * MIB + 1
    assert layout.initrd.stop <= layout.dtb


def test_without_initramfs() -> None:
    assert place(ram(256), kernel()).initrd is None


def test_without_a_kernel() -> None:
    firmware = range(BASE, BASE + 2 * MIB)
    assert place(ram(16), range(BASE, BASE), MIB, [firmware]).initrd is not None
    with pytest.raises(UsageError, match="fit into 3 MiB of memory: use --memory 4M or more"):
        place(ram(3), range(BASE, BASE), MIB, [firmware])


def test_reserved_memory_is_left_alone() -> None:
    top = range(BASE + 200 * MIB, BASE + 256 * MIB)
    layout = place(ram(256), kernel(), MIB, reserved=[top])
    assert layout.dtb + DTB_SPACE <= top.start


def test_kernel_in_reserved_memory() -> None:
    with pytest.raises(UsageError, match="0x80400000; use a smaller kernel"):
        place(ram(256), kernel(), reserved=[range(BASE + 4 * MIB, BASE + 5 * MIB)])


@pytest.mark.parametrize("mib", [1, 2, 6, 7, 8])
def test_too_little_memory_says_how_much_is_enough(mib: int) -> None:
    with pytest.raises(UsageError, match=f"fit into {mib} MiB of memory: use --memory 9M or more"):
        place(ram(mib), kernel(), MIB)
    place(ram(9), kernel(), MIB)


@given(
    mib=st.integers(1, 64),
    image_size=st.integers(1, 32 * MIB),
    initrd_size=st.integers(0, 32 * MIB),
    holes=st.lists(st.tuples(st.integers(0, 64 * MIB), st.integers(1, 8 * MIB)), max_size=3),
)
def test_nothing_overlaps_and_all_is_ram(
    mib: int, image_size: int, initrd_size: int, holes: list[tuple[int, int]]
) -> None:
    reserved = [range(BASE + start, BASE + start + size) for start, size in holes]
    try:
        layout = place(ram(mib), image := kernel(image_size), initrd_size, reserved)
    except UsageError:
        return
    pieces = [image, range(layout.dtb, layout.dtb + DTB_SPACE)]
    if initrd_size:
        assert layout.initrd is not None
        assert layout.initrd.start % 4096 == 0
        assert len(layout.initrd) == initrd_size
        pieces.append(layout.initrd)
    assert layout.dtb % 8 == 0
    for piece in pieces:
        assert piece.start >= image.start
        assert piece.stop <= ram(mib).stop
    for one, other in (*combinations(pieces, 2), *((piece, hole) for piece in pieces for hole in reserved)):
        assert one.stop <= other.start or other.stop <= one.start
