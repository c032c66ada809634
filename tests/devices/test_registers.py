"""devices/registers.py: halves of a 64-bit register."""

from devices.registers import with_half


def test_a_half_is_replaced_and_the_other_one_stays() -> None:
    assert with_half(0x1111_2222_3333_4444, high=True, half=0xAAAA_BBBB) == 0xAAAA_BBBB_3333_4444
    assert with_half(0x1111_2222_3333_4444, high=False, half=0xAAAA_BBBB) == 0x1111_2222_AAAA_BBBB
