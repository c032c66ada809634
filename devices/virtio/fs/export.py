"""A directory of the host, and all that a guest may do in it.

Whatever the guest asks for is done with the rights of the user who runs pyemu, within the directory only (see
tree.py), and one name at a time. To the guest, that user is root; the host's root, if another, is nobody. Device files
are neither made nor opened, and no file gets the bits that would give its owner's rights to who executes it.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from devices.errors import UsageError
from devices.virtio.fs import calls
from devices.virtio.fs.files import Files, FilesState, OpenFile
from devices.virtio.fs.tree import Node, Tree, TreeState, check_name, stale
from devices.virtio.fs.wire import ACCESS_MODE, O_EXCL, O_RDWR, O_TRUNC, O_WRONLY

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LONGEST_TAG", "NOW", "Changes", "Entry", "Export", "ExportState", "Owner", "open_export"]

LONGEST_TAG = 36
_NOBODY = 65534
_PERMISSIONS = 0o1777  # for anything but a directory, beside the type
_DIRECTORY_PERMISSIONS = 0o3777
_MADE = frozenset({stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK})
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ACCESS = {0: os.O_RDONLY, O_WRONLY: os.O_WRONLY, O_RDWR: os.O_RDWR}
_WRITABLE = frozenset({O_WRONLY, O_RDWR})
#: So much is copied at once within the host, and by one request.
COPIED_AT_ONCE = 256 << 10
#: The present, among times.
NOW = -1 << 80


class ExportState(TypedDict):
    """What the guest knows of the directory, and has open. Which directory it is, only the user says."""

    tag: str
    tree: TreeState
    files: FilesState


class Owner(NamedTuple):
    """Who does something in the guest: to whom new files belong, where the host allows that."""

    user: int
    group: int


class Changes(NamedTuple):
    """What is to be changed of a file; None where nothing is. Times are in ns since the epoch, or NOW."""

    mode: int | None = None
    user: int | None = None
    group: int | None = None
    size: int | None = None
    accessed: int | None = None
    modified: int | None = None


class Entry(NamedTuple):
    """A file that the guest has looked up."""

    node: Node
    status: os.stat_result


class Export:
    """The directory open as ``descriptor``, which ``close`` closes, called ``tag`` in the guest.

    All methods but ``close`` and those of state raise OSError for what cannot be done.
    """

    def __init__(self, descriptor: int, tag: str = "share", *, read_only: bool = False) -> None:
        self.tag = tag
        self.read_only = read_only
        self.tree = Tree(descriptor)
        self.files = Files(self.tree.let_go)
        #: Whether the guest has changed anything since this was set to False.
        self.changed = False
        self._user, self._group = os.geteuid(), os.getegid()

    def close(self) -> None:
        """Close everything, when nothing is being done any longer."""
        self.files.close()
        self.files.close_held()
        self.tree.close()

    def forget(self) -> None:
        """The guest has unmounted it, or starts anew: nothing is open or known."""
        self.files.close()
        self.tree.clear()

    def state(self) -> ExportState:
        """Return the state."""
        return {"tag": self.tag, "tree": self.tree.state(), "files": self.files.state()}

    def restore(self, state: ExportState) -> None:
        """Know and have open what ``state`` says, as far as it is still there."""
        if state["tag"] != self.tag:
            raise UsageError(f"the snapshot has a share called {state['tag']!r}, and this machine {self.tag!r}; "
                             f"give its directory again: --share DIR,tag={state['tag']}")  # fmt: skip
        self.files.close()
        self.tree.restore(state["tree"])
        self.files.restore(state["files"], self.tree.node, self._reopen)

    # ---------------------------------------------------------------- owners

    def shown_user(self, user: int) -> int:
        """Return the guest's number of one of the host's users."""
        return 0 if user == self._user else user or _NOBODY

    def shown_group(self, group: int) -> int:
        """Return the guest's number of one of the host's groups."""
        return 0 if group == self._group else group or _NOBODY

    def _give(self, parent: int, name: bytes, owner: Owner) -> None:
        """Let a new file belong to whoever made it, if the host allows that at all: it does so for its root only."""
        if self._user or owner.user == owner.group == 0:
            return
        inherits = os.fstat(parent).st_mode & stat.S_ISGID
        os.chown(name, owner.user, -1 if inherits else owner.group, dir_fd=parent, follow_symlinks=False)

    # ---------------------------------------------------------------- looking

    def look_up(self, parent: Node, name: bytes) -> Entry:
        """Find a file by its name."""
        descriptor = self.tree.directory(parent)
        status = os.stat(check_name(name), dir_fd=descriptor, follow_symlinks=False)
        return Entry(self.tree.look_up(parent, name, status), status)

    def status(self, node: Node, file: OpenFile | None = None) -> os.stat_result:
        """Return the status of a file."""
        return self.tree.status(node) if file is None or file.descriptor < 0 else os.fstat(file.descriptor)

    def read_link(self, node: Node) -> bytes:
        """Return what a symbolic link contains."""
        descriptor, name, _ = self.tree.find(node)
        return os.readlink(name, dir_fd=descriptor)

    def statistics(self) -> os.statvfs_result:
        """Return how much room there is."""
        return os.fstatvfs(self.tree.root_descriptor)

    # ---------------------------------------------------------------- making and removing

    def make_directory(self, parent: Node, name: bytes, mode: int, owner: Owner) -> Entry:
        """Make a directory."""
        descriptor = self._to_change(parent, name)
        os.mkdir(name, mode & _DIRECTORY_PERMISSIONS, dir_fd=descriptor)
        return self._made(parent, descriptor, name, mode, owner)

    def make_node(self, parent: Node, name: bytes, mode: int, owner: Owner) -> Entry:
        """Make a file, a pipe or a socket; no device."""
        descriptor = self._to_change(parent, name)
        if stat.S_IFMT(mode) not in _MADE:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        os.mknod(name, stat.S_IFMT(mode) | mode & _PERMISSIONS, dir_fd=descriptor)
        return self._made(parent, descriptor, name, mode, owner)

    def make_link(self, parent: Node, name: bytes, target: bytes, owner: Owner) -> Entry:
        """Make a symbolic link, which may contain anything: only the guest follows it."""
        descriptor = self._to_change(parent, name)
        os.symlink(target, name, dir_fd=descriptor)
        return self._made(parent, descriptor, name, None, owner)

    def link(self, node: Node, parent: Node, name: bytes) -> Entry:
        """Give a file another name."""
        self._to_change(parent, name)
        to = os.dup(self.tree.directory(parent))  # to find the file may take its place
        try:
            descriptor, old, _ = self.tree.find(node)
            os.link(old, name, src_dir_fd=descriptor, dst_dir_fd=to, follow_symlinks=False)
        finally:
            os.close(to)
        return self.look_up(parent, name)

    def remove(self, parent: Node, name: bytes, *, directory: bool) -> None:
        """Remove a file, or an empty directory."""
        descriptor = self._to_change(parent, name)
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if directory:
            os.rmdir(name, dir_fd=descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)
        self._gone(parent, name, status)

    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int = 0) -> None:
        """Rename a file, over another if there is one; ``flags`` are renameat2's, RENAME_WHITEOUT is refused."""
        self._to_change(parent, name)
        self._to_change(new_parent, new_name)
        if flags & ~(calls.RENAME_NOREPLACE | calls.RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        descriptor = os.dup(self.tree.directory(parent))
        try:
            new_descriptor = self.tree.directory(new_parent)
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            replaced = _status_if_there(new_name, new_descriptor)
            if flags:
                calls.renameat2(descriptor, name, new_descriptor, new_name, flags)
            else:
                os.rename(name, new_name, src_dir_fd=descriptor, dst_dir_fd=new_descriptor)
        finally:
            os.close(descriptor)
        if replaced is not None and os.path.samestat(status, replaced):
            return  # two names of one file: nothing has happened
        moved, other = self.tree.known(status), None if replaced is None else self.tree.known(replaced)
        if flags & calls.RENAME_EXCHANGE:
            if other is not None:
                other.gone_from(new_parent, new_name)
                other.seen_at(parent, name)
        elif replaced is not None:
            self._gone(new_parent, new_name, replaced)
        if moved is not None:
            moved.gone_from(parent, name)
            moved.seen_at(new_parent, new_name)

    def _gone(self, parent: Node, name: bytes, status: os.stat_result) -> None:
        """The guest has removed that name of a file; ``status`` is from before."""
        node = self.tree.known(status)
        if node is None:
            return
        node.gone_from(parent, name)
        if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            self.tree.removed(node)

    def _to_change(self, parent: Node, name: bytes) -> int:
        """Return the descriptor of the directory that is to be changed."""
        self._check_writable()
        check_name(name)
        return self.tree.directory(parent)

    def _check_writable(self) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.changed = True

    def _made(self, parent: Node, descriptor: int, name: bytes, mode: int | None, owner: Owner) -> Entry:
        """Make a new file what the guest wants it to be, whatever the host's umask is."""
        self._give(descriptor, name, owner)
        entry = self.look_up(parent, name)
        if mode is None or (entry.status.st_mode ^ mode) & 0o1777 == 0:
            return entry
        self._set_mode(entry.node, mode)
        return Entry(entry.node, self.tree.status(entry.node))

    # ---------------------------------------------------------------- changing

    def change(self, node: Node, changes: Changes, file: OpenFile | None) -> os.stat_result:
        """Change what is to be changed, and return the file's status."""
        self._check_writable()
        if changes.size is not None:
            self._truncate(node, changes.size, file)
        if changes.user is not None or changes.group is not None:
            self._set_owner(node, changes.user, changes.group)
        if changes.mode is not None:
            self._set_mode(node, changes.mode)
        if changes.accessed is not None or changes.modified is not None:
            self._set_times(node, changes.accessed, changes.modified)
        return self.status(node, file)

    def _truncate(self, node: Node, size: int, file: OpenFile | None) -> None:
        if file is not None and file.flags & ACCESS_MODE in _WRITABLE:
            os.ftruncate(file.fileno(), size)
            return
        descriptor = self._open(node, O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def _set_owner(self, node: Node, user: int | None, group: int | None) -> None:
        uid = -1 if user is None else user or self._user
        gid = -1 if group is None else group or self._group
        self._at(node, lambda path, **where: os.chown(path, uid, gid, **where))

    def _set_mode(self, node: Node, mode: int) -> None:
        mode &= _DIRECTORY_PERMISSIONS if node.kind == stat.S_IFDIR else _PERMISSIONS
        with self._held(node) as descriptor:
            os.chmod(f"/proc/self/fd/{descriptor}", mode)  # noqa: PTH101 - quick

    def _set_times(self, node: Node, accessed: int | None, modified: int | None) -> None:
        if accessed is None or modified is None:
            status = self.tree.status(node)
            accessed = status.st_atime_ns if accessed is None else accessed
            modified = status.st_mtime_ns if modified is None else modified
        now = time.time_ns()
        times = (now if accessed == NOW else accessed, now if modified == NOW else modified)
        self._at(node, lambda path, **where: os.utime(path, ns=times, **where))

    def _at(self, node: Node, act: Callable[..., None]) -> None:
        """Do something to a file, by its descriptor if it has one, or its name."""
        for file in node.opened:
            if file.descriptor >= 0:
                act(file.descriptor)
                return
        if node is self.tree.root:
            act(self.tree.root_descriptor)
            return
        descriptor, name, _ = self.tree.find(node)
        act(name, dir_fd=descriptor, follow_symlinks=False)

    @contextmanager
    def _held(self, node: Node) -> "Iterator[int]":
        """Provide a descriptor of the very file, which need not be readable."""
        for file in node.opened:
            if file.descriptor >= 0:
                yield file.descriptor
                return
        if node is self.tree.root:
            yield self.tree.root_descriptor
            return
        descriptor, name, _ = self.tree.find(node)
        held = os.open(name, _HOLD, dir_fd=descriptor)
        try:
            self._check_same(held, node)
            yield held
        finally:
            os.close(held)

    # ---------------------------------------------------------------- open files

    def open(self, node: Node, flags: int) -> OpenFile:
        """Open a file with the guest's ``flags``."""
        self.files.check_room()
        descriptor = self._open(node, flags)
        if flags & O_TRUNC:
            try:
                os.ftruncate(descriptor, 0)
            except OSError:
                os.close(descriptor)
                raise
        return self.files.add(node, descriptor, flags)

    def open_directory(self, node: Node) -> OpenFile:
        """Open a directory."""
        self.files.check_room()
        return self.files.add(node, self._open_directory(node), 0)

    def create(self, parent: Node, name: bytes, flags: int, mode: int, owner: Owner) -> tuple[Entry, OpenFile]:
        """Make a file and open it, or open the one that is there unless ``flags`` forbid that."""
        descriptor = self._to_change(parent, name)
        self.files.check_room()
        access = _ACCESS.get(flags & ACCESS_MODE, os.O_RDWR)
        try:
            made = os.open(name, access | _OPEN | os.O_CREAT | os.O_EXCL, mode & _PERMISSIONS, dir_fd=descriptor)
        except FileExistsError:
            if flags & O_EXCL:
                raise
            entry = self.look_up(parent, name)
            return entry, self.open(entry.node, flags)
        try:
            self._give(descriptor, name, owner)
            status = os.fstat(made)
            if (status.st_mode ^ mode) & _PERMISSIONS:
                os.fchmod(made, mode & _PERMISSIONS)
                status = os.fstat(made)
        except OSError:
            os.close(made)
            raise
        entry = Entry(self.tree.look_up(parent, name, status), status)
        return entry, self.files.add(entry.node, made, flags)

    def allocate(self, file: OpenFile, mode: int, offset: int, length: int) -> None:
        """Do what fallocate does, as far as doing it again changes nothing."""
        self._check_writable()
        if mode not in calls.FALLOCATE_MODES:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        calls.fallocate(file.fileno(), mode, offset, length)

    def copy(self, source: OpenFile, start: int, target: OpenFile, to: int, length: int) -> int:
        """Copy from file to file, at least a bit; return how much."""
        self._check_writable()
        return os.copy_file_range(source.fileno(), target.fileno(), min(length, COPIED_AT_ONCE), start, to)

    def _reopen(self, node: Node, flags: int) -> int:
        """Open a file again that a saved machine had open."""
        return self._open_directory(node) if node.kind == stat.S_IFDIR else self._open(node, flags)

    def _open(self, node: Node, flags: int) -> int:
        """Return a descriptor of a regular file."""
        access = flags & ACCESS_MODE
        if access not in _ACCESS or node.kind != stat.S_IFREG:
            number = errno.EISDIR if node.kind == stat.S_IFDIR else errno.EINVAL
            raise OSError(number, os.strerror(number))
        if access in _WRITABLE or flags & O_TRUNC:
            self._check_writable()
        host = _ACCESS[access] | _OPEN
        if node.opened and not node.places:  # it is open, and has no name any longer
            held = next((file.descriptor for file in node.opened if file.descriptor >= 0), -1)
            if held < 0:
                raise stale()
            return os.open(f"/proc/self/fd/{held}", host & ~os.O_NOFOLLOW)
        parent, name, _ = self.tree.find(node)
        descriptor = os.open(name, host, dir_fd=parent)
        try:
            self._check_same(descriptor, node)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _open_directory(self, node: Node) -> int:
        descriptor = self.tree.directory(node)  # which is the very directory, whatever its name leads to by now
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)

    def _check_same(self, descriptor: int, node: Node) -> None:
        """Raise OSError unless the file that was opened is the one that was meant."""
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != node.key or stat.S_IFMT(status.st_mode) != node.kind:
            raise stale()


def _status_if_there(name: bytes, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_export(path: str | Path, tag: str = "share", *, read_only: bool = False) -> Export:
    """Open the directory ``path``; raises UsageError, one line, if it cannot be shared."""
    calls.require()
    if not 0 < len(tag.encode()) <= LONGEST_TAG or "\0" in tag:
        raise UsageError(f"share {path}: the tag {tag!r} must have 1 to {LONGEST_TAG} bytes")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise UsageError(f"share {path} is not a directory; for an image file there is --disk") from error
    except OSError as error:
        raise UsageError(f"share {path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"share {path!r} is no name of a directory") from error
    return Export(descriptor, tag, read_only=read_only)
