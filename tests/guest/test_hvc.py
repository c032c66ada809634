"""hvc0, the virtio console: as the guest's console, and beside it as the terminal that knows the window's size."""

import hashlib
import random

import pytest

from devices.power import PowerAction
from tests.guest.conftest import Booted


def test_the_last_console_gets_input_and_all_of_them_print(boot):
    guest = boot(append="console=hvc0 console=ttyS0")
    assert guest.machine.console.run("cat /sys/class/tty/console/active") == (0, "hvc0 ttyS0\n")
    guest = boot(append="console=ttyS0 console=hvc0")
    assert guest.machine.console.run("cat /sys/class/tty/console/active") == (0, "ttyS0 hvc0\n")
    assert guest.machine.console.since(0).count(b"Run /init as init process") == 2
    assert guest.machine.console.run("echo beside >/dev/ttyS0") == (0, "beside\n")


def test_run_expect_and_power_off(boot):
    guest = boot(append="console=hvc0 quiet")
    console = guest.machine.console
    assert console.run("exit_with() { return 3; }; echo out; exit_with") == (3, "out\n")
    console.sendline("read name; echo hello, $name")
    console.sendline("you")
    console.expect("hello, you\r\n")
    console.sendline("poweroff")
    assert guest.machine.run().action is PowerAction.OFF


def test_a_paste_larger_than_all_of_linux_buffers_waits_for_its_reader(boot):
    guest: Booted = boot(append="console=hvc0 quiet")
    console = guest.machine.console
    data = random.Random(1).randbytes(500_000).hex(" ", 30).replace(" ", "\n").encode() + b"\n"
    console.sendline("stty -echo; sleep 10; cat >/tmp/pasted; stty echo")
    guest.machine.run_for(1)
    console.send(data.replace(b"\n", b"\r") + b"\x04")
    guest.machine.run_for(5)
    assert console.pending  # it waits outside
    guest.find_shell()
    assert console.run("md5sum </tmp/pasted").output.split()[0] == hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("console", ["ttyS0", "hvc0"])
def test_the_size_of_the_window(boot, console):
    machine = boot(append=f"console={console} quiet").machine
    for columns, rows in ((100, 30), (121, 41), (90, 35)):
        machine.hvc.resize(columns, rows)
        machine.run_for(2)
        assert machine.console.run("stty size") == (0, f"{rows} {columns}\n")


def test_an_unknown_size_is_left_alone(boot):
    machine = boot(append="console=ttyS0 quiet").machine
    machine.console.run("stty rows 10 cols 20")
    machine.run_for(2)
    assert machine.console.run("stty size") == (0, "10 20\n")


def test_follow_window_sleeps_until_the_size_changes(boot):
    machine = boot(append="console=ttyS0 quiet").machine
    switches = "grep ctxt_switches /proc/$(pidof follow-window)/status"
    machine.run_for(2)
    before = machine.console.run(switches)
    machine.run_for(1000)
    assert machine.console.run(switches) == before
    assert before.status == 0
