#!/bin/sh
# Called by Buildroot with the target directory before it makes the images.
set -eu
python3 "$(dirname "$0")/tone.py" "$1/root/tone.wav"
