"""What goes over the queues of a sound device: codes and structures of virtio 1.3 section 5.14, little-endian.

Names are the specification's, without VIRTIO_SND_.
"""

from struct import Struct

from devices.audio.pcm import FORMATS

# Queues (5.14.2).
CONTROLQ, EVENTQ, TXQ, RXQ = range(4)

#: Configuration space: jacks, streams, chmaps (5.14.4).
CONFIG = Struct("<III")

# Requests (5.14.6).
R_JACK_INFO = 0x0001
R_JACK_REMAP = 0x0002
R_PCM_INFO = 0x0100
R_PCM_SET_PARAMS = 0x0101
R_PCM_PREPARE = 0x0102
R_PCM_RELEASE = 0x0103
R_PCM_START = 0x0104
R_PCM_STOP = 0x0105
R_CHMAP_INFO = 0x0200

# Status of a reply, or of an I/O message.
S_OK = 0x8000
S_BAD_MSG = 0x8001  # malformed, or not now
S_NOT_SUPP = 0x8002
S_IO_ERR = 0x8003

#: A request's code, a reply's status.
HDR = Struct("<I")
#: Request for items of information: code, first item, number of items, bytes of each in the reply (5.14.6.1).
QUERY_INFO = Struct("<IIII")
#: Request about one stream: code, stream number (5.14.6.6.1).
PCM_HDR = Struct("<II")
#: code, stream, buffer_bytes, period_bytes, features, channels, format, rate, padding (5.14.6.6.3).
PCM_SET_PARAMS = Struct("<IIIIIBBBB")
#: hda_fn_nid, features, formats, rates, direction, fewest channels, most channels (5.14.6.6.2).
PCM_INFO = Struct("<IIQQBBB5x")
#: Start of an I/O message: stream number (5.14.6.8).
PCM_XFER = Struct("<I")
#: End of an I/O message: status, latency_bytes.
PCM_STATUS = Struct("<II")

#: The first field of every item of information; no item can be shorter.
INFO_HDR_SIZE = 4

D_OUTPUT, D_INPUT = 0, 1

# PCM_FMT_*: the formats that are played, and how many are defined.
PCM_FORMATS = {
    3: FORMATS["S8"],
    4: FORMATS["U8"],
    5: FORMATS["S16"],
    6: FORMATS["U16"],
    11: FORMATS["S24_3"],
    15: FORMATS["S24"],
    17: FORMATS["S32"],
    18: FORMATS["U32"],
    19: FORMATS["FLOAT"],
    20: FORMATS["FLOAT64"],
}
PCM_FORMATS_DEFINED = 25

#: PCM_RATE_*, all of them; 12000 and 24000 are virtio 1.4's, and drivers that do not know them pass them by.
PCM_RATES = (
    5512, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 64000, 88200, 96000, 176400, 192000, 384000, 12000, 24000,
)  # fmt: skip

CHANNELS_MAX = 8
