"""Shell completion: the replies to a shell, and what happens in a real one when Tab is pressed."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from devices.audio import spec
from emu.cli import cli
from emu.cli.completion import _BACKENDS

ROOT = Path(__file__).parents[3]
SHELLS = ["bash", "zsh", "fish"]


@pytest.fixture
def folder(tmp_path):
    for name in ("Image", "disk.img", "song.wav", "other.wav", "notes.txt", "a song.wav"):
        (tmp_path / name).touch()
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "one.wav").touch()
    return tmp_path


@pytest.fixture
def complete(folder):
    """``complete(shell, words)``: (type, value) of each completion; the last word is incomplete."""

    def ask(shell: str, words: list[str]) -> list[tuple[str, str]]:
        line = " ".join(["pyemu", *words])
        # As its script has it, fish passes the incomplete word itself, not its number.
        current = words[-1] if shell == "fish" else str(len(words))
        variables = {"_PYEMU_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": current}
        said = subprocess.run(
            [sys.executable, "-c", "from emu.cli import main; main()"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if shell == "zsh":
            lines = said.splitlines()
            return list(zip(lines[::3], lines[1::3], strict=True))
        return [tuple(line.partition("\t")[0].split(",", 1)) for line in said.splitlines()]

    return ask


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["bo"], ["boot"]),
        (["guest", ""], ["build", "path"]),
        (["boot", "--clo"], ["--clock"]),
        (["boot", "--clock", "w"], ["warp"]),
        (["boot", "--audio", "n"], ["null"]),
        (["boot", "--audio", ""], [*_BACKENDS, "wav:out.wav"]),
        (["boot", "--net", "u"], ["user"]),
        (["boot", "--net", ""], ["user", "socket:"]),
        (["completion", "z"], ["zsh"]),
    ],
    ids=" ".join,
)
def test_words(complete, shell, words, values):
    assert complete(shell, words) == [("plain", value.replace(":", "\\:") if shell == "zsh" and "" in words else value)
                                      for value in values]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "line",
    ["boot x", "boot Image x", "boot --bios x", "boot --disk x", "boot --dump-dtb x", "audio check x", "audio plot x"],
)
def test_files_are_left_to_the_shell(complete, shell, line):
    assert [kind for kind, _ in complete(shell, line.split())] == ["file"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("so", ["song.wav", "songs/", "songs/out.wav"]),
        ("o", ["other.wav", "out.wav"]),
        ("songs/", ["songs/one.wav", "songs/out.wav"]),
        ("nothing/o", ["nothing/out.wav"]),
        ("a", []),  # it would need quotes
    ],
)
def test_files_after_wav(complete, shell, word, names):
    assert complete(shell, ["boot", "--audio", f"wav:{word}"]) == [("plain", f"wav:{name}") for name in names]
    whole = [("plain", f"--audio=wav:{name}") for name in names]
    assert complete(shell, ["boot", f"--audio=wav:{word}"]) == whole


@pytest.mark.parametrize("before", [["--audio"], ["--audio", "="], ["Image", "rootfs.cpio", "--audio"]], ids=" ".join)
def test_bash_splits_words_at_colons(complete, before):
    assert complete("bash", ["boot", *before, "wav", ":", "oth"]) == [("plain", "other.wav")]
    assert ("plain", "song.wav") in complete("bash", ["boot", *before, "wav", ":"])


def test_it_completes_all_backends():
    assert {name.rstrip(":") for name in _BACKENDS} == set(spec._KINDS)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_says_how_to_install_it(shell):
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_pyemu_completion" in result.stdout
    assert f"pyemu completion {shell}" in result.stdout.splitlines()[-1]


def test_answers_import_no_machine(folder):
    code = "import sys, atexit; atexit.register(lambda: print([m for m in ('unicorn', 'numpy') if m in sys.modules]))"
    variables = {"_PYEMU_COMPLETE": "bash_complete", "COMP_WORDS": "pyemu boot --audio wav", "COMP_CWORD": "3"}
    command = [sys.executable, "-c", f"{code}; from emu.cli import main; main()"]
    said = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert said.stdout == "plain,wav:\nplain,wav:out.wav\n[]\n"


def test_tab_in_a_real_bash(folder, tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pyemu"
    program.write_text(f"#!{sys.executable}\nfrom emu.cli import main\nmain()\n")
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], environment)
    try:
        os.write(terminal, b"PS1='ready> '; eval \"$(pyemu completion bash)\"\n")
        _wait_for(terminal, b"\nready> ")
        os.write(terminal, b"pyemu boot Im\t--clo\tw\t--audio wa\tsong.\t--disk=di\t")
        typed = _wait_for(terminal, b"disk.img ")
        assert typed.endswith(b"pyemu boot Image --clock warp --audio wav:song.wav --disk=disk.img ")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _wait_for(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 4096).replace(b"\x07", b"")
    return seen
