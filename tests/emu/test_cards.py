"""A machine's network cards: what they may be plugged into, and when they are unplugged."""

import gc
import weakref
from pathlib import Path

import pytest

from devices.net.base import Plug
from emu import Machine, UsageError, Wire
from emu.cards import open_networks
from emu.timing.warp import WarpClock
from tests.emu.tiny import WAIT, write_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "Image", WAIT)


class Real(Wire):
    """A network of the host's, by what it says; it remembers what becomes of it."""

    real_time = True

    def __init__(self) -> None:
        super().__init__()
        self.fate: list[str] = []

    def plug(self, plug: Plug) -> None:
        self.fate.append("plugged")
        self.plugged = plug
        super().plug(plug)

    def unplug(self) -> None:
        self.fate.append("unplugged")
        super().unplug()

    def close(self) -> None:
        self.fate.append("closed")


def test_each_card_has_its_own_address_and_comes_last(image):
    with Machine(image, nets=[Wire(), Wire(), Wire(mac=b"\2abcde")]) as machine:
        assert [card.mac.hex() for card in machine.cards] == ["525400707900", "525400707901", "026162636465"]
        assert machine.virtio[-3:] == machine.cards


def test_a_machine_without_a_card_has_none(image):
    with Machine(image) as machine:
        assert machine.cards == []
        assert machine.counters.net_sent == machine.counters.net_lost == 0


@pytest.mark.parametrize("clock", [lambda: "warp", WarpClock], ids=["warp", "a clock"])
@pytest.mark.parametrize("net", ["user", "socket:{tmp}/socket", Real()], ids=["user", "socket", "a backend"])
def test_a_real_network_is_refused_where_time_jumps(image, tmp_path, net, clock):
    net = net.format(tmp=tmp_path) if isinstance(net, str) else net
    with pytest.raises(UsageError, match="time does not jump as that of --clock warp; use --clock host"):
        Machine(image, clock=clock(), net=net)
    assert not (tmp_path / "socket").exists()


def test_a_network_is_not_part_of_a_recording(image, tmp_path):
    with pytest.raises(UsageError, match="not part of a recording"):
        Machine(image, clock="warp", net=Wire(), record=tmp_path / "run.pyemu")


@pytest.mark.parametrize("net", [1, object(), b"user"])
def test_what_is_no_network_is_refused(image, net):
    with pytest.raises(UsageError, match=r"net=.* cannot be used; give a text like"):
        Machine(image, net=net)


def test_a_backend_of_the_users_is_unplugged_and_not_closed(image):
    real = Real()
    for _ in range(2):
        with Machine(image, net=real):
            pass
    assert real.fate == ["plugged", "unplugged"] * 2


def test_what_the_machine_has_opened_it_closes(image, tmp_path):
    with Machine(image, net=f"socket:{tmp_path}/socket"):
        assert (tmp_path / "socket").exists()
    assert not (tmp_path / "socket").exists()


def test_nothing_stays_open_where_no_machine_comes_of_it(image, tmp_path):
    with pytest.raises(UsageError):
        Machine(image, nets=[f"socket:{tmp_path}/socket", "user,what"])
    assert not (tmp_path / "socket").exists()


def test_networks_go_on_when_the_guest_reboots(image, tmp_path):
    with open_networks([f"socket:{tmp_path}/socket,log={tmp_path}/log"], "host") as networks:
        for number in range(2):
            with Machine(image, nets=networks) as machine:
                machine.cards[0].backend.transmit(bytes(60))
            assert (tmp_path / "socket").exists()
            assert (tmp_path / "log").stat().st_size == 24 + (number + 1) * (16 + 60)
    assert not (tmp_path / "socket").exists()
    with pytest.raises(UsageError, match="time does not jump"), open_networks(["user"], "warp"):
        pass


def collect(alive: "weakref.ref[Machine]") -> None:
    """Until it is gone: a thread may just be using it."""
    while alive() is not None:
        gc.collect()


def test_a_backend_keeps_no_machine_alive(image, tmp_path):
    """Not even one that nobody has closed, whose thread goes on."""
    machine = Machine(image, nets=[real := Real(), f"socket:{tmp_path}/socket"])
    alive = weakref.ref(machine)
    del machine
    with pytest.warns(ResourceWarning, match="a Machine was not closed"):
        collect(alive)
    assert real.fate == ["plugged", "unplugged"]
    assert not (tmp_path / "socket").exists()
    real.plugged.post(lambda: None)
    assert real.plugged.now() == 0


def test_a_message_of_the_backends_comes_on_the_machines_thread(image):
    real, done = Real(), []
    with Machine(image, net=real) as machine:
        real.plugged.post(lambda: done.append(machine.clock.now()))
        machine.run_until(lambda: bool(done))
        assert real.plugged.now() >= done[0]


def test_what_is_lost_is_counted(image):
    class Losing(Wire):
        lost = 7

    with Machine(image, net=Losing()) as machine:
        assert machine.counters.net_lost == 7


# ---------------------------------------------------------------- snapshots


def test_a_snapshots_cards_are_to_be_plugged_in_again(image, tmp_path):
    with Machine(image, clock="warp", net=Wire(mac=b"\2abcde", mtu=9000)) as machine:
        machine.run_for(0.001)
        machine.monitor("link eth0 down")
        machine.save(tmp_path / "saved.pyemu")
    with pytest.raises(UsageError, match="the snapshot has cards: 1, and this machine 0; give each its --net again"):
        Machine(tmp_path / "saved.pyemu", clock="warp")
    with Machine(tmp_path / "saved.pyemu", clock="warp", net=Wire()) as machine:
        [card] = machine.cards
        assert card.mac == b"\2abcde", "the driver has read it"
        assert card.config()[10:12] == (9000).to_bytes(2, "little")
        assert not card.link


def test_a_snapshot_of_another_number_of_cards(image):
    with Machine(image, clock="warp") as machine:
        snapshot = machine.snapshot()
    with pytest.raises(UsageError, match="the snapshot has cards: 0, and this machine 1"):
        Machine(snapshot, clock="warp", net=Wire())
