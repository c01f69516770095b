#!/usr/bin/env python3
"""Another program on usbfs, beside the server.

  usbfs.py free DEVICE                  bytes that usbfs still gives to programs
  usbfs.py hog DEVICE BYTES             takes all but so many of them, until it is killed
  usbfs.py claim DEVICE INTERFACE       claims an interface, until it is killed
  usbfs.py control DEVICE               reads the device descriptor again and again until that fails,
                                        and prints the name of the error

DEVICE is a sysfs name (9-1). hog, claim and control say "holding" when they do.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import sys

# The limit counts pages, and the kernel wants each mapping in one piece.
SIZES = (256 << 10, 4096)
USBDEVFS_CLAIMINTERFACE = 2 << 30 | 4 << 16 | ord("U") << 8 | 15


# struct usbdevfs_ctrltransfer: setup, timeout in ms, data.
CONTROL = struct.Struct("BBHHHIP")
USBDEVFS_CONTROL = 3 << 30 | CONTROL.size << 16 | ord("U") << 8 | 0


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


def control(device):
    fd, data = open_device(device), ctypes.create_string_buffer(18)
    request = CONTROL.pack(0x80, 6, 0x0100, 0, 18, 5000, ctypes.addressof(data))
    fcntl.ioctl(fd, USBDEVFS_CONTROL, request)
    print("holding", flush=True)
    try:
        while True:
            fcntl.ioctl(fd, USBDEVFS_CONTROL, request)
    except OSError as error:
        print(errno.errorcode[error.errno])


def hold():
    print("holding", flush=True)
    signal.pause()


if __name__ == "__main__":
    command, name, numbers = sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3:]]
    {"free": free, "hog": hog, "claim": claim, "control": control}[command](name, *numbers)
