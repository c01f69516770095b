#!/usr/bin/env python3
"""Prints the key events of an input device, as "code value" lines, until COUNT have come.

  keys.py /dev/input/eventN COUNT       says "listening" first, when no key can be missed any more
"""

import struct
import sys

EVENT = struct.Struct("llHHi")
EV_KEY = 1

path, count = sys.argv[1], int(sys.argv[2])
with open(path, "rb", buffering=0) as device:
    print("listening", flush=True)
    while count:
        for _, _, kind, code, value in EVENT.iter_unpack(device.read(EVENT.size * 64)):
            # Value 2 is the kernel's repetition of a held key, dependent on timing.
            if kind == EV_KEY and value != 2:
                print(code, value, flush=True)
                count -= 1
