"""Files given as disks that are not raw images: other emulators' formats, and compressed files.

If they were used as they are, the guest would see the container instead of its disk, and destroy it with its first
write. Nor are such formats ever interpreted: a guest may write such a header to its raw disk to make its host open
other files the next time (QEMU's CVE-2008-2004). They are therefore refused, and only the user can declare one raw.
"""

import os
from pathlib import Path
from shlex import quote

__all__ = ["how_to_convert"]

_SECTOR = 512
#: Images' first bytes, and qemu-img's names for them.
_IMAGES = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
}
_VHD = b"conectix"  # begins a dynamic image; a fixed-size one is a raw disk followed by a sector that begins like this
_VDI_AT, _VDI = 64, b"\x7f\x10\xda\xbe"
_UNPACKERS = {
    b"\x1f\x8b\x08": ("gzip", "gunzip -c"),
    b"\xfd7zXZ\0": ("xz", "xz -dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
    b"PK\3\4": ("zip", "unzip -p"),
}


def how_to_convert(descriptor: int, path: Path) -> str | None:
    """Say what the file at ``path`` is, and the command that makes a raw disk of it; None if it is one already.

    The contents, read from ``descriptor``, decide, not the name.
    """
    first = os.pread(descriptor, _SECTOR, 0)
    last = os.pread(descriptor, _SECTOR, max(0, os.lseek(descriptor, 0, os.SEEK_END) - _SECTOR))
    source = quote(str(path))
    target = quote(str(path.with_suffix(".raw" if path.suffix == ".img" else ".img")))
    for magic, (name, command) in _UNPACKERS.items():
        if first.startswith(magic):
            return f"a {name} file; unpack it: {command} {source} > {target}"
    found = [image for magic, image in _IMAGES.items() if first.startswith(magic)]
    found += ["vdi"] * first.startswith(_VDI, _VDI_AT)
    found += ["vpc"] * last.startswith(_VHD)
    if not found:
        return None
    name = "VHD" if found[0] == "vpc" else found[0]
    return f"a {name} image; convert it: qemu-img convert -f {found[0]} -O raw {source} {target}"
