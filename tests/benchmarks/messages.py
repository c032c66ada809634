"""Send the sound device a million random messages, good and bad, and check each answer.

    python -m tests.benchmarks.messages [COUNT] [SEED]

Prints how many there were of each kind, how fast it was, and the memory in use after each tenth. A wrong answer
raises AssertionError; COUNT and SEED reproduce it. See tests/devices/virtio/sound/storm/.
"""

import gc
import resource
import sys
import time

from tests.devices.virtio.sound.storm.storm import Storm


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    storm = Storm(seed)
    began = time.monotonic()
    for tenth in range(1, 11):
        storm.run(count * tenth // 10 - storm.messages)
        seconds = time.monotonic() - began
        gc.collect()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{storm.messages} messages, {storm.messages / seconds:.0f}/s, ", end="")
        print(f"{sys.getallocatedblocks()} blocks allocated, {memory} MiB at most", flush=True)
    for kind, number in sorted(storm.counts.items()):
        print(f"{number:9} {kind}")


if __name__ == "__main__":
    main()
