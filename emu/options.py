"""How sizes, disks and consoles are written, on the command line and in Python."""

import logging
import re
from typing import TYPE_CHECKING

from devices.errors import UsageError

if TYPE_CHECKING:
    from devices.virtio.disk import Disk

__all__ = ["last_console", "parse_disk", "parse_size"]

logger = logging.getLogger(__name__)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str | int) -> int:
    """Bytes in ``256M``, ``1G``, ``65536``; raises UsageError for anything else."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"(\d{1,15})([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"{text!r} is not a size; write it like 256M or 1G")
    return int(match[1]) * _UNITS[match[2].upper()]


def last_console(append: str) -> str:
    """Name the guest's /dev/console: the last ``console=`` in ``append``, or "".

    This is Linux's rule (Documentation/admin-guide/serial-console.rst).
    """
    names = re.findall(r"(?:^|\s)console=([^\s,]*)", append)
    return names[-1] if names else ""


def parse_disk(text: str) -> "Disk":
    """Open the disk ``FILE[,readonly][,snapshot][,raw]``; raises UsageError."""
    from devices.virtio.disk import open_disk  # noqa: PLC0415 - not needed to boot

    name, *options = text.split(",")
    unknown = [option for option in options if option not in ("readonly", "snapshot", "raw")]
    if unknown or not name:
        raise UsageError(f"--disk {text}: {unknown[0] if unknown else 'the file'!r} makes no sense; "
                         "write FILE, FILE,readonly, FILE,snapshot or FILE,raw")  # fmt: skip
    disk = open_disk(name, read_only="readonly" in options, snapshot="snapshot" in options, raw="raw" in options)
    if disk.warning is not None:
        logger.warning("%s", disk.warning)
    return disk
