#!/usr/bin/env python3
"""One URB of many bytes each way, from a program on usbfs through vhci to the simulated loopback device.

  large.py DEVICE LENGTH                DEVICE is a sysfs name (9-1)

Reads LENGTH bytes from the source in one URB, writes them to the sink in one, and has the device count.
Says "read LENGTH, written LENGTH, 0 errors"; or "not submitted", with the error, where this kernel takes
no such URB; or which of them ended with which error.
"""

import ctypes
import errno
import fcntl
import os
import select
import struct
import sys

from usbfs import CONTROL, USBDEVFS_CONTROL, open_device

SOURCE, SINK, INTERFACE = 0x81, 0x01, 0
BULK = 3
COUNTERS = 0x01

# struct usbdevfs_urb, without packets.
URB = struct.Struct("BBiIPiiiiiIP")
SUBMIT = 2 << 30 | URB.size << 16 | ord("U") << 8 | 10
REAP_NOW = 1 << 30 | struct.calcsize("P") << 16 | ord("U") << 8 | 13
CLAIM = 2 << 30 | 4 << 16 | ord("U") << 8 | 15

libc = ctypes.CDLL(None, use_errno=True)


def transfer(fd, address, data):
    """One URB; how many bytes it moved."""
    urb = ctypes.create_string_buffer(
        URB.pack(BULK, address, 0, 0, ctypes.addressof(data), len(data), 0, 0, 0, 0, 0, 0)
    )
    # Not by fcntl.ioctl, which gives the kernel a copy: the kernel writes the result to this very
    # place.
    if libc.ioctl(fd, ctypes.c_ulong(SUBMIT), urb):
        sys.exit(f"not submitted: {errno.errorcode[ctypes.get_errno()]}")
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
    fcntl.ioctl(fd, REAP_NOW, bytearray(struct.calcsize("P")))
    _, _, status, _, _, _, actual, *_ = URB.unpack(urb.raw[: URB.size])
    if status:
        raise OSError(-status, os.strerror(-status))
    return actual


def errors_counted(fd):
    answer = ctypes.create_string_buffer(32)
    fcntl.ioctl(
        fd,
        USBDEVFS_CONTROL,
        CONTROL.pack(0xC0, COUNTERS, 0, SINK, len(answer), 5000, ctypes.addressof(answer)),
    )
    _, _, errors, _ = struct.unpack("<4Q", answer.raw)
    return errors


def main(device, length):
    fd = open_device(device)
    fcntl.ioctl(fd, CLAIM, struct.pack("I", INTERFACE))
    data = (ctypes.c_char * length)()
    said = []
    for what, address in (("read", SOURCE), ("written", SINK)):
        try:
            said.append(f"{what} {transfer(fd, address, data)}")
        except OSError as error:
            sys.exit(f"not {what}: {errno.errorcode[error.errno]}")
    print(f"{', '.join(said)}, {errors_counted(fd)} errors")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
