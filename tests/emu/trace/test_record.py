"""What can be traced, and the message for anything else."""

import pytest

from devices.errors import UsageError
from emu.trace import CATEGORIES, DEFAULT, Trace, parse_categories


def test_names_come_as_a_string_or_a_list():
    assert parse_categories("snd,plic") == parse_categories(["plic", "snd"]) == {"snd", "plic"}


def test_all_is_all_and_the_default_is_all_but_the_traps():
    assert parse_categories("all") == set(CATEGORIES)
    assert parse_categories("all") - parse_categories(DEFAULT) == {"trap"}


@pytest.mark.parametrize("text", ["", "irqs", "snd,", "all,snd", "SND"])
def test_an_unknown_category_is_one_line_that_lists_the_known_ones(text):
    with pytest.raises(UsageError, match=r"^there is nothing to trace called .*; use all, or some of snd,virtio,net,"):
        Trace(print, text)
