"""Recording, alone and while playing, on the host's clock: exactness, xruns, lateness and CPU usage.

python -m tests.benchmarks.recording [SECONDS]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from devices.audio import AudioBackend, Loopback, PcmParams, WavSink
from devices.audio.pcm import FORMATS
from devices.audio.wavfile import WavFile
from emu import guest
from emu.machine import Machine
from emu.shell import Shell
from tests.benchmarks.sound import BUSY, S16_STEREO, S32_STEREO_384K, idle, noise

S16_8_CHANNELS = PcmParams(FORMATS["S16"], 48000, 8)
ALSA_NAMES = {"S16": "S16_LE", "S32": "S32_LE"}


def song(path: Path, params: PcmParams, frames: bytes) -> Path:
    """Make a WAV file that also serves as a disk."""
    file = WavFile(path, params)
    file.append(frames)
    file.close()
    with path.open("ab") as disk:
        disk.truncate(-(-disk.tell() // 512) * 512)
    return path


def record(files: tuple[Path, Path], params: PcmParams, seconds: int, *, both: bool, busy: bool) -> None:
    """Record once, from a file or from what is played meanwhile, and print a line about it."""
    frames = noise(params, seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = song(folder / "song.wav", params, frames)
        length = seconds + 2 if both else seconds
        disk = folder / "disk.img"
        with disk.open("wb") as file:
            file.truncate(-(-length * params.rate * params.frame_size // 512) * 512)
        audio: AudioBackend = Loopback() if both else WavSink(folder / "out.wav", source=source)
        with Machine(*files, audio=audio, disks=[str(disk), f"{source},readonly"]) as machine:
            shell = Shell(machine)
            shell.find()
            shell.run("echo 7 > /proc/asound/card0/pcm0c/xrun_debug; echo 7 > /proc/asound/card0/pcm0p/xrun_debug")
            machine.run_for(1.0)
            base = idle(machine, 4.0)
            if busy:
                shell.run(BUSY)
            command = (
                f"arecord -q -D hw:0,0 -f {ALSA_NAMES[params.format.name]} -r {params.rate} -c {params.channels} "
                f"-d {length} -t raw /dev/vda"
            )
            began, processor = machine.clock.now(), time.process_time()
            status = shell.run(
                f"{command} & recorder=$!; sleep 0.5; aplay -q -D hw:0,0 /dev/vdb; wait $recorder" if both else command
            )
            took = (machine.clock.now() - began) / 1e9
            processor = (time.process_time() - processor) / took
            _, text = shell.capture("sync; dmesg | grep -iE 'xrun:|hw_ptr|lost interr'")
            complaints = text.count(b"\n")
            stats = machine.sound.stats
        recorded = disk.read_bytes()
    position = recorded.find(frames)
    exact = position >= 0 and not np.frombuffer(recorded[:position], np.uint8).any()
    print(
        f"{seconds} s of {params}, {'played and recorded' if both else 'recorded'}"
        f"{' beside a busy loop' if busy else ''}: {'bit-exact' if exact else 'NOT EXACT'} from frame "
        f"{position // params.frame_size}, status {status}, {complaints} complaints, "
        f"{sum(s.underruns for s in stats)} underruns, {sum(s.overruns for s in stats)} overruns, "
        f"latest completion {max(s.lateness_max_ns for s in stats) / 1e6:.2f} ms"
        + ("" if busy else f", {100 * processor:.1f} % of a core ({100 * base:.2f} % idle)")
    )


def main(seconds: int, files: tuple[Path, Path]) -> None:
    """Print the lines."""
    for busy in (False, True):
        for both in (False, True):
            record(files, S16_STEREO, seconds, both=both, busy=busy)
    for params in (S32_STEREO_384K, S16_8_CHANNELS):
        record(files, params, min(seconds, 10), both=True, busy=False)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, guest.files(lambda line: print(line, file=sys.stderr)))
