#!/usr/bin/env python3
"""Ramps for the sound scenarios: made, found again in a recording, checked.

  ramp.py make FILE FRAMES              a stereo wav: silence, FRAMES of ramp, silence
  ramp.py compare FILE A B C D          in QEMU's wav, is the sound in bytes C to D that in A to B?
  ramp.py check FILE SAMPLES            a mono recording: SAMPLES, each the one before it plus 1

Sound is 16 bit little endian, 48 kHz. Says what is wrong and exits 1, or what was found and exits 0.
"""

import array
import struct
import sys
import wave

RATE = 48000


def samples_of(data):
    samples = array.array("h")
    samples.frombytes(data[: len(data) // 2 * 2])
    return samples


def make(path, frames):
    """Left counts up fast, right counts its turns: each frame tells where it belongs."""
    silence = bytes(4 * RATE // 2)
    ramp = b"".join(
        struct.pack("<hh", 1000 + 20 * (i % 1500), 1000 + 20 * (i // 1500)) for i in range(frames)
    )
    with wave.open(path, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(silence + ramp + silence)


def sound_in(data):
    """The frames from the first to the last that is not silence."""
    frames = array.array("I")
    frames.frombytes(data[: len(data) // 4 * 4])
    sounding = [i for i, frame in enumerate(frames) if frame]
    return frames[sounding[0] : sounding[-1] + 1] if sounding else frames[:0]


def steps(frames):
    """How often the left channel does not go up: turns of the ramp, and every break in it."""
    left = [struct.unpack("<hh", struct.pack("<I", frame))[0] for frame in frames]
    return sum(1 for a, b in zip(left, left[1:]) if b <= a)


def compare(path, a, b, c, d):
    with open(path, "rb") as file:
        data = file.read()
    header = 44
    reference = sound_in(data[max(a, header) : b])
    heard = sound_in(data[max(c, header) : d])
    described = (
        f"{len(heard)} frames, {heard.count(0)} of them silent, {steps(heard)} breaks; "
        f"without USB/IP {len(reference)} frames, {reference.count(0)} silent, "
        f"{steps(reference)} breaks"
    )
    if heard == reference and len(heard):
        return described
    first = next((i for i, (x, y) in enumerate(zip(heard, reference)) if x != y), None)
    sys.exit(f"the sound differs, first at frame {first}: {described}")


def check(path, wanted):
    with wave.open(path, "rb") as recording:
        form = (recording.getnchannels(), recording.getsampwidth(), recording.getframerate())
        if form != (1, 2, RATE):
            sys.exit(f"channels, bytes a sample, rate are {form}, not (1, 2, {RATE})")
        samples = samples_of(recording.readframes(recording.getnframes()))
    if len(samples) != wanted:
        sys.exit(f"{len(samples)} samples recorded, not {wanted}")
    breaks = [i for i in range(1, wanted) if (samples[i] - samples[i - 1]) % 65536 != 1]
    if breaks:
        i = breaks[0]
        sys.exit(
            f"{len(breaks)} breaks in the ramp, the first at sample {i}: "
            f"{[s % 65536 for s in samples[max(0, i - 2) : i + 3]]}"
        )
    return f"{wanted} samples, none missing"


if __name__ == "__main__":
    command, file, numbers = sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3:]]
    result = {"make": make, "compare": compare, "check": check}[command](file, *numbers)
    if result:
        print(result)
