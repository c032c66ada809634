"""Sound on the host's clock: exactness, guest time, xruns, lateness and CPU usage.

python -m tests.benchmarks.sound [SECONDS]
"""

import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from devices.audio import WavSink
from devices.audio.pcm import FORMATS, PcmParams
from devices.audio.wavfile import WavFile
from emu import guest
from emu.machine import Machine

S16_STEREO = PcmParams(FORMATS["S16"], 48000, 2)
S32_STEREO_384K = PcmParams(FORMATS["S32"], 384000, 2)
BUSY = "while :; do :; done &"


def noise(params: PcmParams, seconds: float) -> bytes:
    """Return frames in which no two stretches are alike."""
    generator = np.random.default_rng(1)
    return generator.bytes(round(params.rate * seconds) * params.frame_size)


def idle(machine: Machine, seconds: float) -> float:
    """Return the share of a core that the machine takes while its guest is idle."""
    start = time.process_time()
    machine.run_for(seconds)
    return (time.process_time() - start) / seconds


def play(files: tuple[Path, Path], params: PcmParams, seconds: float, *, busy: bool) -> None:
    """Play once, and print a line about it."""
    frames = noise(params, seconds)
    with tempfile.TemporaryDirectory() as folder:
        song = WavFile(Path(folder) / "song.wav", params)
        song.append(frames)
        song.close()
        with song.path.open("ab") as file:
            file.truncate(-(-file.tell() // 512) * 512)
        sink = WavSink(Path(folder) / "out.wav")
        memory = 256 << 20
        with Machine(*files, memory=memory, audio=sink, disks=[f"{song.path},readonly"]) as machine:
            machine.console.expect("\n# ")
            machine.console.sendline("echo 7 > /proc/asound/card0/pcm0p/xrun_debug; PS1='$?:ready '")
            machine.console.expect("0:ready ")
            machine.run_for(1.0)
            base = idle(machine, 4.0)
            if busy:
                machine.console.sendline(BUSY)
                machine.console.expect("0:ready ")
            began, processor = machine.clock.now(), time.process_time()
            machine.console.sendline("aplay -q -D hw:0,0 /dev/vda")
            status = machine.console.expect(re.compile(rb"(\d+):ready "), timeout=10 * seconds + 60)[1]
            took = (machine.clock.now() - began) / 1e9
            processor = (time.process_time() - processor) / took
            machine.console.sendline("dmesg | grep -ciE 'xrun|hw_ptr|lost interr'")
            complaints = int(machine.console.expect(re.compile(rb"\n(\d+)\r\n"))[1])
            stats = machine.sound.stats[0]
        played = sink.files[0].path.read_bytes()
        exact = played.find(frames) >= 0 and len(sink.files) == 1
        extra = sink.played - len(frames) // params.frame_size
    print(
        f"{seconds:.0f} s of {params}{', beside a busy loop' if busy else ''}: "
        f"{'bit-exact' if exact else 'NOT EXACT'}, {extra} frames of padding, status {status.decode()}, "
        f"{complaints} complaints, {stats.underruns} underruns, guest time {took:.3f} s, "
        f"latest completion {stats.lateness_max_ns / 1e6:.2f} ms"
        + ("" if busy else f", {100 * processor:.1f} % of a core ({100 * base:.2f} % idle)")
    )


def main(seconds: float, files: tuple[Path, Path]) -> None:
    """Print the lines."""
    play(files, S16_STEREO, seconds, busy=False)
    play(files, S16_STEREO, seconds, busy=True)
    play(files, S32_STEREO_384K, min(seconds, 10.0), busy=False)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, guest.files(lambda line: print(line, file=sys.stderr)))
