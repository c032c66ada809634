"""A driver of a watched sound device."""

from emu.trace import Trace
from tests.devices.virtio.sound.guest import Guest


class WatchedGuest(Guest):
    def __init__(self, **options) -> None:
        self.records = []
        super().__init__(trace=Trace(self.records.append, "snd"), **options)

    def told(self, track: str) -> list[tuple]:
        return [(record.name, record.span) for record in self.records if record.track == track]
