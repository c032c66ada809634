"""The default guest boots with both kinds of firmware and does what a machine should."""

import hashlib
import time
from pathlib import Path

import pytest

from devices.errors import MachineError
from devices.power import PowerAction
from emu.machine import Machine
from tests.guest.conftest import Booted

OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic")


@pytest.mark.parametrize(
    "bios", [None, OPENSBI / "fw_jump.bin", OPENSBI / "fw_dynamic.bin"], ids=lambda bios: bios and bios.name
)
def test_boots_forks_and_powers_off(boot, bios):
    guest = boot(bios=bios)
    assert "OpenSBI" in guest.machine.console.since(0).decode() if bios else True
    text = guest.ok("i=0; while [ $i -lt 200 ]; do i=$((i+1)); /bin/echo line $i; done")
    assert [f"line {number}" for number in range(1, 201)] == [
        line for line in text.replace("\r", "").split("\n") if line.startswith("line ")
    ]
    guest.machine.console.sendline("poweroff")
    assert guest.machine.run().action is PowerAction.OFF


def test_reboot_is_a_reset(boot):
    guest = boot()
    guest.machine.console.sendline("reboot")
    assert guest.machine.run().action is PowerAction.RESET


def test_the_guests_clock_is_the_wall_clock(boot):
    """Its RTC always; what Linux makes of it at the start, a second and a half, falls behind if the host is busy."""
    before = int(time.time())
    guest = boot(clock="host")
    texts = guest.ok("date +%s").split(), guest.ok("cat /sys/class/rtc/rtc0/since_epoch").split()
    date, rtc = (int(next(word for word in text if word.isdigit())) for text in texts)
    assert before <= rtc <= time.time()
    assert before <= date <= rtc + 1


def test_guest_time_passes_without_real_time_under_warp(boot):
    guest = boot()
    before = guest.machine.clock.now()
    guest.ok("sleep 1000")
    assert 1000.0 <= (guest.machine.clock.now() - before) / 1e9 < 1001.0


def test_a_paste_of_100_kb_loses_nothing(boot):
    guest = boot()
    data = bytes(b"0123456789abcdef"[i * 7 % 16] for i in range(100_000))
    lines = b"\r".join(data[i : i + 100] for i in range(0, len(data), 100))
    guest.machine.console.sendline("stty -echo; cat > /tmp/paste")
    guest.machine.run_for(0.5)
    guest.machine.console.send(lines + b"\r\x04")
    guest.machine.run_until(lambda: guest.machine.console.pending == 0)
    guest.find_shell()
    text = guest.ok("stty echo; wc -c < /tmp/paste; tr -d '\\n' < /tmp/paste | md5sum")
    assert "101000" in text
    assert hashlib.md5(data).hexdigest() in text


@pytest.mark.parametrize("console", ["ttyS0", "hvc0"])
@pytest.mark.parametrize("key", [b"\x03", b"\x1c"], ids=["SIGINT", "SIGQUIT"])
def test_c_c_interrupts_a_program_and_not_the_shell(boot, console, key):
    guest = boot(append=f"console={console}")
    guest.ok("shell=old")
    guest.machine.console.sendline("sleep 1000000")
    guest.machine.run_for(0.5)
    guest.machine.console.send(key)
    guest.find_shell()
    assert guest.machine.clock.now() < 1000 * 10**9
    assert "old shell" in guest.ok("echo ${shell-new} shell")


def test_programs_ignore_no_signals(boot):
    assert "SigIgn:\t0000000000000000" in boot().ok("cat /proc/self/status")


@pytest.mark.parametrize("end", ["exit", "kill -9 $$", "kill -9 $PPID", "kill -9 -1", "sleep 1000 & exit"])
def test_a_shell_that_ends_is_followed_by_one_new_one(boot, end):
    guest = boot()
    guest.ok("shell=old")
    guest.machine.console.sendline(end)
    guest.machine.run_for(1.0)
    guest.find_shell()
    assert "new shell" in guest.ok("echo ${shell-new} shell")
    assert guest.ok("ps -o args").count("\nsh -l") == 1


def test_orphans_are_buried(boot):
    guest = boot()
    guest.ok("(setsid sleep 0.1 &); sleep 0.5")
    assert "sleep" not in guest.ok("ps -o comm")


def test_a_kernel_panic_ends_the_machine(guest_files):
    nothing_to_run = "console=ttyS0 rdinit=/nonexistent init=/nonexistent"
    with (
        Machine(*guest_files, clock="warp", append=nothing_to_run) as machine,
        pytest.raises(MachineError, match="panicked"),
    ):
        machine.run()


def test_entropy(boot):
    guest: Booted = boot()
    text = guest.ok("cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c")
    assert "virtio_rng.0" in text
    assert "256" in text
