"""What the guest knows of a shared directory: its files, each by a number, and how each is reached.

A node is a file that the guest has looked up. It stands for an inode of the host, and is reached through the directory
in which it was last seen, by its name there: one step at a time, from the descriptor of a directory that was itself
reached so, and never through a link. After each step it is the very inode that was looked up, or the node is stale
(ESTALE), upon which Linux looks its path up again. So whatever is renamed or removed on the host, nothing outside of
the directory is ever reached, and nodes need no descriptors: only those directories have one that were used last.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypedDict

from devices.state import U32, U64, check
from devices.virtio.fs.table import Nodes, Spread
from devices.virtio.fs.wire import ROOT_ID

if TYPE_CHECKING:
    from devices.virtio.fs.files import OpenFile

__all__ = ["Node", "NodeState", "Tree", "TreeState", "check_name", "is_name", "stale"]

#: More nodes than this are forgotten, those first that were used least recently: a guest that needs one looks it up
#: again. They take up to 150 MB.
MOST_NODES = 1 << 18
#: So many, those used last, are saved.
MOST_SAVED = 1 << 15
#: Open directories beside the root.
MOST_DIRECTORIES = 64
#: Directories on the way to a file; more would take too long.
DEEPEST = 400
#: Names under which a file with several is remembered.
MOST_PLACES = 4
#: Of what was known before the guest began anew, so much is freed for each node that is new: there are three of each.
_FREED_AT_ONCE = 4
LONGEST_NAME = 255
MOST_LOOKUPS = 1 << 62

_KINDS = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})


def stale() -> OSError:
    """Return the error for what is no longer what the guest means."""
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def is_name(name: bytes) -> bool:
    """Whether ``name`` leads to nothing but an entry of a directory."""
    return name not in {b"", b".", b".."} and b"/" not in name and b"\0" not in name


def check_name(name: bytes) -> bytes:
    """Return ``name``, or raise OSError if it is none."""
    if len(name) > LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if not is_name(name):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return name


class NodeState(TypedDict):
    """See Node; ``places`` are the numbers of directories, and names there."""

    id: U64
    device: U64
    inode: U64
    kind: U32
    lookups: U64
    places: list[tuple[U64, bytes]]


class TreeState(TypedDict):
    """The nodes but for the root, and the number of the next one. ``device`` is the host's number of the root's."""

    device: U64
    next_id: U64
    nodes: list[NodeState]


class Node:
    """A file that the guest knows: ``key`` is the host's device and inode, ``kind`` the type (S_IFREG ...).

    ``lookups`` is how often the guest has been told of it and has not forgotten. ``places`` are the directories and
    names under which it was seen, the newest last; a file that the guest removed has none. ``opened`` are the open
    files of it; ``age`` is the table's.
    """

    __slots__ = ("age", "id", "key", "kind", "lookups", "opened", "places")

    def __init__(self, number: int, key: tuple[int, int], kind: int) -> None:
        self.id = number
        self.age = 0
        self.key = key
        self.kind = kind
        self.lookups = 0
        self.places: list[tuple[Node, bytes]] = []
        self.opened: list[OpenFile] = []

    def seen_at(self, parent: "Node", name: bytes) -> None:
        """Remember that it is there."""
        place = (parent, name)
        places = self.places
        if not places or places[-1] != place:
            if place in places:
                places.remove(place)
            places.append(place)
            del places[:-MOST_PLACES]

    def gone_from(self, parent: "Node", name: bytes) -> None:
        """Remember that it is no longer there."""
        place = (parent, name)
        if place in self.places:
            self.places.remove(place)


class Tree:
    """All nodes, beneath the directory open as ``root``, which ``close`` closes."""

    def __init__(self, root: int) -> None:
        self.root_descriptor = root
        self._directories: OrderedDict[Node, int] = OrderedDict()
        self._nodes = Nodes()
        self._known: Spread[tuple[int, int], Node] = Spread()
        self._gone: list[dict[Any, Node]] = []  # tables that are to be freed
        self._next_id = ROOT_ID + 1
        self.root = self._make_root()

    def _make_root(self) -> Node:
        status = os.fstat(self.root_descriptor)
        root = Node(ROOT_ID, (status.st_dev, status.st_ino), stat.S_IFDIR)
        self._known.put(root.key, root)
        return root

    def clear(self) -> None:
        """Forget everything. To free 100,000 nodes takes 0.1 s, so that is done little by little."""
        for descriptor in self._directories.values():
            os.close(descriptor)
        self._directories.clear()
        self._gone += filter(None, (*self._known.parts(), *self._nodes.parts()))
        self._nodes, self._known = Nodes(), Spread()
        self.root = self._make_root()

    def close(self) -> None:
        """Close all descriptors."""
        if self.root_descriptor >= 0:
            self.clear()
            os.close(self.root_descriptor)
            self.root_descriptor = -1

    def _free_some(self) -> None:
        for _ in range(_FREED_AT_ONCE):
            if not self._gone:
                return
            self._gone[-1].popitem()
            if not self._gone[-1]:
                self._gone.pop()

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def descriptors(self) -> int:
        """How many directories are open."""
        return len(self._directories) + 1

    # ---------------------------------------------------------------- nodes

    def node(self, number: int) -> Node:
        """Return the node of this number; raises OSError if there is none (any longer)."""
        if number == ROOT_ID:
            return self.root
        node = self._nodes.get(number)
        if node is None:
            raise stale()
        self._nodes.use(node)
        return node

    def known(self, status: os.stat_result) -> Node | None:
        """Return the node of a file, if the guest knows it."""
        node = self._known.get((status.st_dev, status.st_ino))
        return node if node is not None and node.kind == stat.S_IFMT(status.st_mode) else None

    def look_up(self, parent: Node, name: bytes, status: os.stat_result) -> Node:
        """Return the node of a file that was just seen there, and count that the guest is told of it."""
        node = self.known(status)
        if node is None:
            node = Node(self._next_id, (status.st_dev, status.st_ino), stat.S_IFMT(status.st_mode))
            self._next_id += 1
            self._nodes.add(node)
            self._known.put(node.key, node)
            self._free_some()
            if len(self._nodes) > MOST_NODES:
                self._forget_oldest()
        node.lookups += 1
        if node is not self.root:
            node.seen_at(parent, name)
        return node

    def forget(self, number: int, lookups: int) -> None:
        """The guest forgets so many lookups of a node, and perhaps the node."""
        node = self._nodes.get(number)
        if node is not None:
            node.lookups -= min(lookups, node.lookups)
            self.let_go(node)

    def let_go(self, node: Node) -> None:
        """Drop a node that nobody needs any longer."""
        if not node.lookups and not node.opened and node is not self.root:
            self._drop(node)

    def removed(self, node: Node) -> None:
        """The guest has removed the last name of a node: another file may get the same inode."""
        node.places.clear()
        if self._known.get(node.key) is node:
            self._known.remove(node.key)
        descriptor = self._directories.pop(node, None)
        if descriptor is not None:
            os.close(descriptor)

    def _forget_oldest(self) -> None:
        while (node := self._nodes.oldest()).opened:  # there are far fewer of those than nodes
            self._nodes.use(node)
        self._drop(node)

    def _drop(self, node: Node) -> None:
        self._nodes.remove(node)
        self.removed(node)

    # ---------------------------------------------------------------- reaching them

    def directory(self, node: Node) -> int:
        """Return the descriptor of a directory, good until the next call; raises OSError."""
        if node is self.root:
            return self.root_descriptor
        descriptor = self._directories.get(node)
        if descriptor is not None:
            self._directories.move_to_end(node)
            return descriptor
        way: list[Node] = []
        while node is not self.root and node not in self._directories:
            if node.kind != stat.S_IFDIR:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not node.places or len(way) == DEEPEST:
                raise stale()
            way.append(node)
            node = node.places[-1][0]
        descriptor = self.root_descriptor if node is self.root else self._directories[node]
        while way:
            node = way.pop()
            descriptor = self._open_directory(node, descriptor)
        return descriptor

    def _open_directory(self, node: Node, parent: int) -> int:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(node.places[-1][1], flags, dir_fd=parent)
        except OSError as error:
            raise (stale() if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP} else error) from None
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != node.key:
            os.close(descriptor)
            raise stale()
        self._directories[node] = descriptor
        if len(self._directories) > MOST_DIRECTORIES:
            os.close(self._directories.popitem(last=False)[1])
        return descriptor

    def find(self, node: Node) -> tuple[int, bytes, os.stat_result]:
        """Return where a node is: a directory's descriptor, good until the next call, its name there, and its status.

        Raises OSError if it cannot be found; and for the root, which has no name.
        """
        for parent, name in reversed(node.places):
            try:
                descriptor = self.directory(parent)
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == node.key and stat.S_IFMT(status.st_mode) == node.kind:
                return descriptor, name, status
        raise stale()

    def status(self, node: Node) -> os.stat_result:
        """Return a node's status; raises OSError."""
        for file in node.opened:
            if file.descriptor >= 0:
                return os.fstat(file.descriptor)
        if node is self.root or node in self._directories:
            return os.fstat(self.directory(node))
        return self.find(node)[2]

    # ---------------------------------------------------------------- state

    def state(self) -> TreeState:
        """Return the nodes used last, those of open files, and the directories that lead to them."""
        wanted: dict[int, Node] = {}
        for one in self._worth_saving():
            node = one
            while node is not self.root and node.id not in wanted:
                wanted[node.id] = node
                if not node.places:
                    break
                node = node.places[-1][0]
        return {
            "device": self.root.key[0],
            "next_id": self._next_id,
            "nodes": [_node_state(node, wanted) for node in sorted(wanted.values(), key=lambda node: node.id)],
        }

    def _worth_saving(self) -> Iterator[Node]:
        yield from (node for node in self._nodes if node.opened)
        for node, _ in zip(reversed(self._nodes), range(MOST_SAVED), strict=False):
            yield node

    def restore(self, state: TreeState) -> None:
        """Know what ``state`` says, of a directory that may have changed since, or be another one."""
        self.clear()
        self._gone.clear()
        nodes = {ROOT_ID: self.root}
        check(state["next_id"] > ROOT_ID, "the files of a share")
        for one in state["nodes"]:
            # Numbers of devices are the host's, and new at each of its starts; that of the share's own is known.
            device = self.root.key[0] if one["device"] == state["device"] else one["device"]
            node = Node(one["id"], (device, one["inode"]), one["kind"])
            node.lookups = one["lookups"]
            check(
                ROOT_ID < node.id < state["next_id"]
                and node.id not in nodes
                and node.kind in _KINDS
                and node.lookups < MOST_LOOKUPS
                and len(one["places"]) <= MOST_PLACES,
                "a file of a share",
            )
            nodes[node.id] = node
        for one in state["nodes"]:
            node = nodes[one["id"]]
            for parent, name in one["places"]:
                check(parent in nodes and nodes[parent].kind == stat.S_IFDIR and is_name(name), "the place of a file")
                node.places.append((nodes[parent], name))
            self._nodes.add(node)
            if node.places and self._known.get(node.key) is None:
                self._known.put(node.key, node)
        self._next_id = state["next_id"]


def _node_state(node: Node, saved: dict[int, Node]) -> NodeState:
    return {
        "id": node.id,
        "device": node.key[0],
        "inode": node.key[1],
        "kind": node.kind,
        "lookups": node.lookups,
        "places": [(parent.id, name) for parent, name in node.places if parent.id in saved or parent.id == ROOT_ID],
    }
