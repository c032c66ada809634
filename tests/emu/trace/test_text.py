"""Records as lines."""

from emu.trace import Record, line


def test_an_instant():
    record = Record(1_234_567_890, "virtio", "virtio0 sound", "notify", {"queue": "txq"})
    assert line(record) == "[    1.234568] virtio  virtio0 sound: notify queue=txq"


def test_a_span_says_how_long_it_was():
    record = Record(9_000, "snd", "playback 0", "period", {"late_us": 1.25, "bytes": 16}, (1_000, 7_500))
    assert line(record) == "[    0.000009] snd     playback 0: period 6.5 us late_us=1.2 bytes=16"


def test_words_are_quoted():
    record = Record(0, "plic", "irq 1", "pending", {"by": "S mode"})
    assert line(record).endswith(' by="S mode"')
