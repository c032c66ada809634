"""virtio sound (virtio 1.3 section 5.14): wire format (wire), one PCM stream (stream), the device (device)."""

from devices.virtio.sound.device import SoundDevice
from devices.virtio.sound.stream import StreamStats

__all__ = ["SoundDevice", "StreamStats"]
