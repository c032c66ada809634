"""What the words of a CPU in a snapshot may be."""

import subprocess
import sys

import pytest

from devices.errors import UsageError
from emu.cpu.engine import Reg
from emu.snapshot.plain import decode, encode, type_of
from tests.emu.cpu.bare import Bare

MISA, HYPERVISOR = 71, 95


@pytest.mark.parametrize(
    ("word", "values"),
    [
        (Reg.X0, [1]),
        (Reg.FRM, [8, 1 << 63]),
        (MISA, [1, 1 << 63]),
        (Reg.PRIV, [1, 4, 1 << 32]),  # it is 3
        (Reg.MHARTID, [1]),
        (Reg.MIP, [1 << 12, 1 << 63]),
        (Reg.SATP, [mode << 60 for mode in range(16) if mode not in {0, 8, 9, 10}]),
        (HYPERVISOR, [1]),
        (Reg.PMP + 1, [0x100]),
        (Reg.PMP_USED, [32, 1 << 32]),
        *((pointer, [1, 1 << 40]) for pointer in Reg.POINTERS),
        (Reg.FP_STATUS, [1, 5 << 16]),
    ],
)
@pytest.mark.usefixtures("engine_kind")
def test_what_no_guest_can_do_is_refused_and_changes_nothing(word: int, values: list[int]) -> None:
    bare = Bare()
    before = bare.state.tobytes()
    for value in values:
        state = bare.hart.state()
        state["cpu"]["words"][word] ^= value
        state["cpu"]["words"][Reg.A0] = 1
        with pytest.raises(UsageError, match=r"^the snapshot is damaged: .* cannot be so; save it again$"):
            bare.hart.restore(state)
    assert bare.state.tobytes() == before


@pytest.mark.parametrize("number", [0, 195, 197])
def test_another_number_of_words_is_refused(number: int) -> None:
    bare = Bare()
    state = bare.hart.state()
    state["cpu"]["words"] = (state["cpu"]["words"] + [0])[:number]
    with pytest.raises(UsageError, match="the number of the CPU's words"):
        bare.hart.restore(decode(encode(state), type_of(bare.hart)))


def test_no_pointer_of_this_process_is_in_a_state() -> None:
    bare = Bare()
    words = bare.hart.state()["cpu"]["words"]
    assert [words[pointer] for pointer in Reg.POINTERS] == [0, 0, 0]
    pointers = [bare.state[pointer] for pointer in Reg.POINTERS]
    assert any(pointers)
    assert not ({*pointers} - {0}) & {*words}


@pytest.mark.parametrize("kind", ["native", "python"])
def test_a_thousand_altered_states_are_refused_or_run(kind: str) -> None:
    """In a process of its own, which Unicorn would abort."""
    command = [sys.executable, "-m", "tests.emu.cpu.altered", kind]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    refused, ran = map(int, done.stdout.split())
    assert refused > 300
    assert ran > 1_000
