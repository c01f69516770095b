"""The simulated devices as the clients' scripts know them, and how those say what is wrong."""

import sys

VENDOR, LOOPBACK, DISK, MICROPHONE, SERIAL = 0x1209, 1, 2, 3, 4

# In the order that `run` asks for: 1-1 to 1-4.
ALL = [SERIAL, DISK, MICROPHONE, LOOPBACK]

ADDRESS, PORT = sys.argv[1], int(sys.argv[2])


def check(what, seen, wanted):
    if seen != wanted:
        sys.exit(f"{what}: {seen!r:.200} and not {wanted!r:.200}")


def pattern(start, length):
    return bytes(position % 251 for position in range(start, start + length))
