#!/bin/sh
# Called by Buildroot with the target directory before it makes the images.
set -eu
python3 "$(dirname "$0")/tone.py" "$1/root/tone.wav"
# The toolchain brings these along, and no program of the guest uses them.
find "$1" \( -name 'libstdc++.so*' -o -name 'libgomp.so*' \) -delete
