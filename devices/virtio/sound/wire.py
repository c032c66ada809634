"""What a sound device's queues carry: codes and structures of virtio 1.3 section 5.14, little-endian.

Names are the specification's, without VIRTIO_SND_.
"""

from struct import Struct

from devices.audio.pcm import FORMATS

# Queues (5.14.2).
CONTROLQ, EVENTQ, TXQ, RXQ = range(4)

#: Feature: there are control elements (5.14.3).
F_CTLS = 1 << 0

#: Configuration space: jacks, streams, chmaps, controls (5.14.4).
CONFIG = Struct("<IIII")

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
R_CTL_INFO = 0x0300
R_CTL_ENUM_ITEMS = 0x0301
R_CTL_READ = 0x0302
R_CTL_WRITE = 0x0303
R_CTL_TLV_READ = 0x0304
R_CTL_TLV_WRITE = 0x0305
R_CTL_TLV_COMMAND = 0x0306

#: The requests with which a driver starts: queries for information (5.14.6.1).
QUERIES = frozenset((R_JACK_INFO, R_PCM_INFO, R_CHMAP_INFO, R_CTL_INFO))

# Events (5.14.6).
EVT_JACK_CONNECTED = 0x1000
EVT_JACK_DISCONNECTED = 0x1001
EVT_CTL_NOTIFY = 0x1200

# Status of a reply, or of an I/O message.
S_OK = 0x8000
S_BAD_MSG = 0x8001  # malformed, or not now
S_NOT_SUPP = 0x8002
S_IO_ERR = 0x8003

#: A request's code, a reply's status.
HDR = Struct("<I")
#: Request for items of information: code, first item, number of items, bytes of each in the reply (5.14.6.1).
QUERY_INFO = Struct("<IIII")
#: An event: code, what it is about (5.14.6).
EVENT = Struct("<II")
#: hda_fn_nid, features, configuration default, capabilities, connected (5.14.6.4.1).
JACK_INFO = Struct("<IIIIB7x")
#: code, jack number, association, sequence (5.14.6.4.2).
JACK_REMAP = Struct("<IIII")
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

#: hda_fn_nid, direction, number of channels, their positions (5.14.6.9.1).
CHMAP_INFO = Struct("<IBB18s")
#: Request about one control: code, control number (5.14.6.10).
CTL_HDR = Struct("<II")
#: hda_fn_nid, role, type, access, count, index, name, least, most, step of an INTEGER (5.14.6.10.1). The
#: specification's structures have no implicit padding, but compilers align the union's 64-bit member, so Linux's has.
CTL_INFO = Struct("<IIIIII44sIII12x")
CTL_INFO_ALIGNED = Struct("<IIIIII44s4xIII12x")
#: The largest value of a control: 128 32-bit integers (5.14.6.10.2).
CTL_VALUE_SIZE = 512
#: An event: code, control number, what has changed (5.14.6.10.4).
CTL_EVENT = Struct("<IHH")

#: The first field of every item of information; no item can be shorter.
INFO_HDR_SIZE = 4

D_OUTPUT, D_INPUT = 0, 1

# PCM_FMT_*: the supported formats, and how many are defined.
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

#: PCM_RATE_*, all of them; 12000 and 24000 are from virtio 1.4, and drivers that do not know them ignore them.
PCM_RATES = (
    5512, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 64000, 88200, 96000, 176400, 192000, 384000, 12000, 24000,
)  # fmt: skip

CHANNELS_MAX = 8

# JACK_F_*: a bit number.
JACK_F_REMAP = 0

# CTL_ROLE_*, to be shifted by one and combined with a direction; CTL_TYPE_*; CTL_ACCESS_* and CTL_EVT_MASK_* as bits.
CTL_ROLE_VOLUME = 1
CTL_ROLE_MUTE = 2
CTL_TYPE_BOOLEAN = 0
CTL_TYPE_INTEGER = 1
CTL_ACCESS_READ = 1 << 0
CTL_ACCESS_WRITE = 1 << 1
CTL_ACCESS_TLV_READ = 1 << 4
CTL_EVT_MASK_VALUE = 1 << 0
