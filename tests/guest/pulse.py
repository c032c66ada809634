"""A PulseAudio server without a sound card, ALSA's default device on top, and the server's own tools to listen."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest

PACKAGES = "libasound2-plugins libportaudio2 pulseaudio pulseaudio-utils"
RATE = 48000
_RAW = (f"--rate={RATE}", "--format=float32le", "--channels=2", "--raw")


def need_packages() -> None:
    """Fail where the packages are missing: these tests are never skipped."""
    there = all(map(shutil.which, ("pulseaudio", "parec", "pacat"))) and find_library("portaudio")
    plugins = [*Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")]
    if not (there and plugins):
        pytest.fail(f"apt-get install --no-install-recommends {PACKAGES}", pytrace=False)


class PulseServer:
    """A server that can be killed and restarted. ``ear`` is its sink, and ``ear.monitor`` its source.

    ``norewinds`` makes the sink take sound in blocks of at most 50 ms. Otherwise it takes 2 s at once while nobody
    plays, as no sound card does, and a stream that starts meanwhile is not heard until they are over.
    """

    def __init__(self, folder: Path) -> None:
        need_packages()
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        config = folder / "asound.conf"
        config.write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        self.environment = {
            "PULSE_SERVER": f"unix:{folder}/native",
            "PULSE_RUNTIME_PATH": str(folder),
            "PULSE_STATE_PATH": str(folder),
            "ALSA_CONFIG_PATH": str(config),
        }

    @property
    def whole_environment(self) -> dict[str, str]:
        """The environment for processes that use the server."""
        return {**os.environ, **self.environment}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(
            [
                *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm=1"),
                *("-L", f"module-native-protocol-unix socket={self.folder}/native auth-anonymous=1"),
                *("-L", f"module-null-sink sink_name=ear rate={RATE} norewinds=1"),
            ],
            env=self.whole_environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        ask = ["pactl", "info"]
        while subprocess.run(ask, check=False, env=self.whole_environment, capture_output=True).returncode:
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            for name in ("native", "pid"):
                (self.folder / name).unlink(missing_ok=True)

    def ear(self, *, timed: bool = False) -> "Ear":
        """Record the sink from now on."""
        return Ear(self, timed=timed)

    def mouth(self, sound: "np.ndarray") -> subprocess.Popen:
        """Play a sound (float32, two channels), again and again, to the sink, whose monitor is recorded by default."""
        process = subprocess.Popen(
            ["pacat", "-d", "ear", *_RAW],
            env=self.whole_environment,
            stdin=subprocess.PIPE,
        )
        threading.Thread(target=_speak, args=(process, sound.astype("<f4").tobytes()), daemon=True).start()
        return process


def _speak(process, data):
    with contextlib.suppress(BrokenPipeError), process.stdin:
        while True:
            process.stdin.write(data)


class Ear:
    """parec on the sink's monitor, into a file, so as not to disturb a machine in this process.

    With ``timed`` it records when each frame came.
    """

    def __init__(self, server: PulseServer, *, timed: bool = False) -> None:
        self._file = tempfile.TemporaryFile(dir=server.folder)  # noqa: SIM115 - stop() closes it
        self._process = subprocess.Popen(
            ["parec", "-d", "ear.monitor", "--latency-msec=5", *_RAW],
            env=server.whole_environment,
            stdout=self._file,
        )
        self._times: list[tuple[float, int]] = []  # monotonic, frames by then
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True) if timed else None
        if self._thread is not None:
            self._thread.start()

    def _watch(self) -> None:
        before = 0
        while not self._stopped.wait(0.001):
            size = os.fstat(self._file.fileno()).st_size
            if size > before:
                self._times.append((time.monotonic(), size // 8))
                before = size

    def stop(self) -> "np.ndarray":
        """Everything heard, an array (frame, channel)."""
        self._process.terminate()
        self._process.wait()
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        heard = self.heard()
        self._file.close()
        return heard

    def heard(self) -> "np.ndarray":
        """What has been heard so far."""
        data = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0)
        return np.frombuffer(data[: len(data) // 8 * 8], "<f4").reshape(-1, 2)

    def time_of(self, frame: int) -> float:
        """When a frame came, from the second of sound around it; parec gets blocks of a few ms."""
        near = [when - (count - frame) / RATE for when, count in self._times if frame <= count < frame + RATE]
        return float(np.median(near))
