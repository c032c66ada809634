"""``pyemu boot`` with the default guest, as users and CI run it."""

import re
import resource
import subprocess
import sys
import time
import wave
from pathlib import Path

import pytest

PYEMU = [sys.executable, "-m", "emu"]
ROOT = Path(__file__).parents[2]
TONE_BYTES = 48_000 * 4


@pytest.fixture
def boot(guest_files):
    """Boot the guest with some options, on the warp clock; stderr is without the line that repeats a failure."""

    def run(*options: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [*PYEMU, "boot", *guest_files, "--clock", "warp", *options]
        done = subprocess.run(map(str, command), cwd=ROOT, input=stdin, capture_output=True, check=False)
        done.stderr = re.sub(rb"pyemu: to repeat it: [^\n]*\n\Z", b"", done.stderr)
        return done

    return run


def test_exec_prints_what_the_command_prints_and_powers_off(boot):
    run = boot("--exec", "echo out; uname -m")
    assert run.returncode == 0
    assert b"\r\nout\r\nriscv64\r\n" in run.stdout
    assert b"Power down" in run.stdout
    assert run.stderr == b""


def test_exec_stops_with_the_status_of_the_command_that_fails(boot):
    run = boot("--exec", "(exit 7)", "--exec", "echo not''reached")
    assert run.returncode == 7
    assert b"notreached" not in run.stdout


def test_a_reader_that_stops_stops_neither_the_guest_nor_its_sound(guest_files, tmp_path):
    sound = tmp_path / "out.wav"
    command = "yes | head -c 200000 & sleep 1; aplay -q -D hw:0,0 /root/tone.wav; wait"
    arguments = ["boot", *map(str, guest_files), "-a", "quiet", "--clock", "warp", "--audio", f"wav:{sound}"]
    with subprocess.Popen(
        [*PYEMU, *arguments, "--exec", command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as running:
        try:
            while not sound.exists() or sound.stat().st_size < TONE_BYTES:
                time.sleep(0.05)  # pytest's timeout says if it never comes
            assert running.poll() is None
            printed = running.stdout.read()
        finally:
            running.kill()
    assert printed.count(b"\ny\r") == 100_000


def test_nobody_is_asked_where_the_cursor_is_who_cannot_answer(boot):
    assert b"\x1b[6n" not in boot("--exec", "true").stdout


COMMANDS = {
    "several lines": "for i in 1 2\ndo\n\techo 'line' \"$i\"\ndone\nexit_with() { return 5; }\nexit_with",
    "quotes and pipes": """echo 'it'"'"'s' "a" | grep -q "^it's a$" && (exit 5)""",
    "history, percent, backslash": r"printf %s '100%! \' | grep -q '^100%! .$' && (exit 5)",
    "very long": f"test $(echo {'x' * 20_000} | wc -c) = 20001 && (exit 5)",
    "not ASCII": "test $(printf 'größer' | wc -c) = 8 && (exit 5)",
    "no newline at the end of the output": "echo -n abc; (exit 5)",
    "reads its input": "stty -echo; (exit 5)",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_exec_types_any_command(boot, command):
    assert boot("--exec", command).returncode == 5


def test_exec_with_a_missing_quote_is_the_shells_error(boot):
    run = boot("--exec", 'echo "abc')
    assert run.returncode == 2
    assert b"unterminated quoted string" in run.stdout


@pytest.mark.parametrize("status", [0, 3])
def test_exec_exit_is_its_status(boot, status):
    run = boot("--exec", f"exit {status}")
    assert (run.returncode, run.stderr) == (status, b"")


@pytest.mark.parametrize("command", ["exit 0", "kill -9 $$"])
def test_exec_with_a_shell_that_ends(boot, command):
    run = boot("--exec", command, "--exec", "true")
    assert run.returncode == 1
    assert run.stderr.count(b"\n") == 1
    assert b"the shell has ended" in run.stderr


def test_exec_with_a_guest_that_reboots(boot):
    run = boot("--exec", "reboot")
    assert run.returncode == 1
    assert run.stderr == b"pyemu: error: --exec: the guest went away (reset) before all commands had run\n"


def test_panic_is_status_1_with_its_reason(boot):
    run = boot("-a", "rdinit=/nonexistent root=/dev/nonexistent")
    assert run.returncode == 1
    assert run.stderr.startswith(b"pyemu: error: the guest's kernel panicked: ")
    assert run.stderr.count(b"\n") == 1
    assert b"end Kernel panic" in run.stdout  # its last words


@pytest.mark.parametrize("status", [0, 3])
def test_sound_that_could_not_be_written_is_status_1(boot, tmp_path, status):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        run = boot("--audio", f"wav:{tmp_path}/out.wav", "--exec", f"aplay -q -D hw:0,0 /root/tone.wav; exit {status}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run.returncode == (status or 1)
    assert b"frames that were played are missing: File too large" in run.stderr


@pytest.mark.parametrize("then", ["sleep 2", "dd if=/dev/urandom of=/dev/null bs=32M count=1"])
def test_a_program_that_prints_a_panic_is_not_one(boot, then):
    lie = "Kernel panic - not syncing: x"
    run = boot("--exec", f"echo '{lie}'; echo '{lie}' > /dev/kmsg; {then}")
    assert (run.returncode, run.stderr) == (0, b"")


@pytest.mark.parametrize("command", ["while :; do :; done", "sleep 1000000; read x"])
def test_timeout_is_status_124(boot, command):
    run = boot("--exec", command, "--timeout", "3")
    assert run.returncode == 124
    assert run.stderr == b"pyemu: stopped after 3 s (--timeout)\n"


def test_commands_on_standard_input(boot):
    run = boot("-a", "quiet", stdin=b"echo from''stdin\npoweroff\n")
    assert run.returncode == 0
    assert b"fromstdin\r\n" in run.stdout


def test_everything_works_on_hvc0(boot):
    run = boot("-a", "console=hvc0", "--exec", "echo out; exit_with() { return 7; }; exit_with")
    assert run.returncode == 7
    assert b"\r\nout\r\n" in run.stdout
    run = boot("-a", "console=hvc0 quiet", stdin=b"echo from''stdin\npoweroff\n")
    assert run.returncode == 0
    assert b"fromstdin\r\n" in run.stdout


def test_at_the_end_of_its_input_the_guest_keeps_running(boot):
    run = boot("-a", "quiet", stdin=b"sleep 100; echo all rea''d; poweroff\n")
    assert run.returncode == 0
    assert b"all read\r\n" in run.stdout
    assert run.stderr == b""


def test_reboot_boots_again_and_sound_goes_on_in_the_same_file(guest_files, tmp_path):
    sound, disk = tmp_path / "out.wav", tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    play = "head -c 48000 /dev/urandom | aplay -q -f S16_LE -r 48000 -c 1"
    command = [*PYEMU, "boot", *guest_files, "-a", "quiet", "--clock", "warp"]
    command += ["--disk", disk, "--audio", f"wav:{sound}"]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        running.stdin.write(f"{play}; echo written >/dev/vda; sync; reboot\n".encode())
        running.stdin.flush()
        assert any(b"Restarting system" in line for line in running.stdout)
        output, error = running.communicate(f"head -c 7 /dev/vda; {play}; poweroff\n".encode())
    assert running.returncode == 0
    assert b"\nwritten" in output
    with wave.open(str(sound)) as file:
        assert file.getnframes() >= 2 * 24000  # aplay fills up its last period
    assert error.decode().startswith(f"pyemu: {sound}: {file.getnframes()} frames ")
    assert error.count(b"\n") == 1


def test_memory_and_kernel_command_line_reach_the_guest(boot):
    run = boot("-m", "64M", "-a", "quiet nonsense=1", "--exec", "cat /proc/cmdline; free -m | grep Mem")
    assert b"\nconsole=ttyS0 quiet nonsense=1\r\n" in run.stdout
    assert 40 < int(run.stdout.partition(b"Mem:")[2].split()[0]) < 64
