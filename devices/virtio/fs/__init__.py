"""virtio-fs: a directory of the host as a file system of the guest (virtio 1.2 section 5.11).

FUSE's messages (wire), what the guest knows of the directory (tree: names; files: what is open), what it may do there
(export), how a request becomes such an action (server), and the device with its queues (device). What Python lacks of
the host's system calls is in calls.
"""

from devices.virtio.fs.device import FsDevice
from devices.virtio.fs.export import Export, open_export

__all__ = ["Export", "FsDevice", "open_export"]
