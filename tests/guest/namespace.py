"""A host with a network of its own, in a namespace: one neighbour, somewhere.test, and a server that knows its name.

python -m tests.guest.namespace IMAGE ROOTFS: boot there, and print what a guest fetches from the neighbour by its name.
To be run by ``unshare --user --map-root-user --net --mount``.
"""

import ctypes
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from emu import Machine
from tests.guest.internet import serving

__all__: list[str] = []

NAME, ADDRESS = b"\x09somewhere\x04test\0", "10.9.9.9"
_MS_BIND = 4096


def answer(server: socket.socket) -> None:
    """Answer questions for addresses (RFC 1035, section 4)."""
    while True:
        question, client = server.recvfrom(512)
        end = question.index(b"\0", 12) + 5
        known = question[12:end] == NAME + b"\0\1\0\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ADDRESS)
        head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if known else b"\0\0") + bytes(4)
        server.sendto(head + question[12:end] + record * known, client)


def move_in() -> None:
    """Have addresses, and be one's own server for names."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    with tempfile.NamedTemporaryFile(mode="w", delete=False) as file:
        file.write("nameserver 127.0.0.1\n")
    if ctypes.CDLL(None).mount(file.name.encode(), b"/etc/resolv.conf", None, _MS_BIND, None):
        raise OSError("/etc/resolv.conf cannot be another one here")
    Path(file.name).unlink()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=answer, args=(server,), daemon=True).start()


def main(image: str, rootfs: str) -> None:
    """Boot, and fetch."""
    move_in()
    with serving(ADDRESS) as port, Machine(image, rootfs, net="user") as machine:
        print(machine.console.run(f"wget -q -O - http://somewhere.test:{port}/100000 | md5sum").output)
        print(machine.console.run(f"wget -O - http://nowhere.test:{port}/1").output)


if __name__ == "__main__":
    main(*sys.argv[1:])
