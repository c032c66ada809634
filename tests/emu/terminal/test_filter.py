"""What is removed from the guest's output for a terminal, however it is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.terminal.filter import Filter

COPY = b"\x1b]52;c;cm0gLXJmIH4K\x07"


def filtered(*pieces: bytes, **what: bool) -> bytes:
    filter_ = Filter(**(what or {"clipboard": True}))
    return b"".join([*map(filter_, pieces), filter_.rest()])


CLIPBOARD = {
    "set": COPY,
    "ended by ST": b"\x1b]52;c;eA==\x1b\\",
    "asked for": b"\x1b]52;c;?\x07",
    "another selection": b"\x1b]52;p;eA==\x07",
    "leading zeros": b"\x1b]0052;c;eA==\x07",
    "ignored characters": b"\x1b\0]\x015\x022\r;c;eA==\x07",
    "DEL": b"\x1b\x7f]5\x7f2\x7f;c;eA==\x07",
    "one character for ESC ]": b"\xc2\x9d52;c;eA==\x07",
    "given up with CAN": b"\x1b]52;c;eA==\x18",
    "kitty": b"\x1b]5522;type=write;\x1b\\",
    "iTerm2": b"\x1b]1337;Copy=;eA==\x07",
    "iTerm2, all that follows": b"\x1b]1337;CopyToClipboard=\x07",
    "iTerm2, an older one": b"\x1b]50;CopyToClipboard=\x07",
}
OTHERS = {
    "title": b"\x1b]0;52;c;\x07",
    "title, ended by ST": b"\x1b]2;Copy\x1b\\",
    "palette": b"\x1b]4;52;rgb:ff/00/00\x07",
    "colours and the cursor": b"\x1b[1;31mred\x1b[0m\x1b[2;5H\x1b7\x1b8",
    "text": b"]52;c;eA==\x07 52;",
    "UTF-8": "\u00c2 \u00dd \u201d52; \u2029".encode(),
    "iTerm2's mark": b"\x1b]1337;SetMark\x07",
    "font": b"\x1b]50;fixed\x07",
    "every byte": bytes(range(256)) * 2,
    "ends in a sequence": b"text\x1b]5",
    "tmux passes a title on": b"\x1bPtmux;\x1b\x1b]0;x\x07\x1b\\",
}


@pytest.mark.parametrize("sequence", CLIPBOARD.values(), ids=CLIPBOARD.keys())
def test_what_is_for_the_clipboard_is_taken_out_wherever_it_is_cut(sequence):
    text = b"before" + sequence + b"after"
    assert filtered(text) == b"beforeafter"
    assert filtered(*(bytes((byte,)) for byte in text)) == b"beforeafter"
    assert {filtered(text[:cut], text[cut:]) for cut in range(len(text))} == {b"beforeafter"}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS.keys())
def test_everything_else_passes(text):
    assert filtered(text) == text
    assert filtered(*(bytes((byte,)) for byte in text)) == text


@given(st.lists(st.sampled_from([b"\x1b", b"]", b"52;", b"[6", b"n", b"\xc2", b"\x9d", b"\0", b"\x07", b"x", b"\\"])))
def test_pieces_make_no_difference(pieces):
    assert filtered(*pieces, clipboard=True, cursor=True) == filtered(b"".join(pieces), clipboard=True, cursor=True)


def test_what_is_on_its_way_through_tmux_or_screen_is_taken_out_of_its_wrapping():
    assert filtered(b"\x1bPtmux;\x1b" + COPY + b"\x1b\\") == b"\x1bPtmux;\x1b\\"
    assert filtered(b"\x1bP" + COPY + b"\x1b\\") == b"\x1bP\x1b\\"


def test_another_sequence_ends_it():
    assert filtered(b"\x1b]52;c;eA==\x1b[31mred") == b"\x1b[31mred"


def test_nothing_is_piled_up():
    filter_ = Filter(clipboard=True)
    assert filter_(b"\x1b]52;c;" + b"A" * 1_000_000) == b""
    assert filter_(b"A" * 1_000_000 + b"\x07end") == b"end"


@pytest.mark.parametrize("padding", [b"\x1b" + b"\0" * 300, b"\x1b]" + b"0" * 300])
def test_a_sequence_that_is_hidden_behind_padding_does_not_begin(padding):
    sequence = padding + (b"" if b"]" in padding else b"]") + b"52;c;eA==\x07"
    for cut in range(len(sequence)):
        assert b"\x1b" not in filtered(sequence[:cut], sequence[cut:])


def test_text_that_is_no_sequence_comes_at_once():
    filter_ = Filter(clipboard=True, cursor=True)
    assert filter_(b"# ") == b"# "
    assert filter_("Größe\x1b[0m".encode()) == "Größe\x1b[0m".encode()


def test_the_question_where_the_cursor_is():
    assert filtered(b"# \x1b[6n", b"\x1b[", b"6n\x1b[6m", COPY, cursor=True) == b"# \x1b[6m" + COPY


def test_nothing_is_filtered_that_need_not_be():
    assert Filter()(b"\x1b") == b"\x1b"
