#!/usr/bin/env python3
"""Another program on usbfs, beside the server.

  usbfs.py free DEVICE                  bytes that usbfs still gives to programs
  usbfs.py hog DEVICE BYTES             takes all but so many of them, until it is killed
  usbfs.py claim DEVICE INTERFACE       claims an interface, until it is killed

DEVICE is a sysfs name (9-1). hog and claim say "holding" when they do.
"""

import fcntl
import mmap
import os
import signal
import struct
import sys

# The limit counts pages, and the kernel wants each mapping in one piece.
SIZES = (256 << 10, 4096)
USBDEVFS_CLAIMINTERFACE = 2 << 30 | 4 << 16 | ord("U") << 8 | 15


def open_device(device):
    def number(name):
        with open(f"/sys/bus/usb/devices/{device}/{name}", encoding="ascii") as file:
            return int(file.read())

    return os.open(f"/dev/bus/usb/{number('busnum'):03}/{number('devnum'):03}", os.O_RDWR)


def take_all(fd):
    """Maps memory until there is no more."""
    taken = []
    for size in SIZES:
        try:
            while True:
                taken.append(mmap.mmap(fd, size))
        except OSError:
            pass
    return taken


def free(device):
    print(sum(len(piece) for piece in take_all(open_device(device))))


def hog(device, left):
    taken = take_all(open_device(device))
    while left > 0 and taken:
        piece = taken.pop()
        left -= len(piece)
        piece.close()
    hold()


def claim(device, interface):
    fcntl.ioctl(open_device(device), USBDEVFS_CLAIMINTERFACE, struct.pack("I", interface))
    hold()


def hold():
    print("holding", flush=True)
    signal.pause()


if __name__ == "__main__":
    command, name, numbers = sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3:]]
    {"free": free, "hog": hog, "claim": claim}[command](name, *numbers)
