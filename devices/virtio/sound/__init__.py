"""virtio sound (virtio 1.3 section 5.14).

Wire format (wire), PCM streams (stream; output and input; pacing), jacks, channel maps, controls and the events that
report their changes (jacks, chmaps, controls, events), the device (device).
"""

from devices.virtio.sound.device import SoundDevice
from devices.virtio.sound.prepared import StreamStats

__all__ = ["SoundDevice", "StreamStats"]
