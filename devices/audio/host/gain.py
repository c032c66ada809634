"""Volume that changes without a click."""

import numpy as np

from devices.audio.host.ring import Frames
from devices.audio.resample import Planes

__all__ = ["Gain"]


class Gain:
    """The volume of one stream: a factor for each of its ``channels``."""

    def __init__(self, channels: int) -> None:
        #: The factors as they are now, (channel, 1).
        self.now: Planes = np.ones((channels, 1), np.float32)

    def apply(self, planes: Planes, wanted: Frames) -> Planes:
        """Return ``planes`` times the factors, which become those that are ``wanted`` little by little."""
        if (wanted != self.now).any():
            ramp = np.linspace(0.0, 1.0, planes.shape[1], dtype=np.float32)
            planes = planes * (self.now + (wanted - self.now) * ramp)
            self.now = wanted
        elif (wanted != 1.0).any():
            planes = planes * wanted
        return planes
