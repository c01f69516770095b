#!/usr/bin/env python3
"""Runs cases of the kernel's usbtest driver on a device it is bound to.

  usbtest.py DEVICE CASES CHANNEL [SIZE]

DEVICE is a sysfs name (9-1), CASES are like 0-14,24, SIZE is that of URBs in cases 27 and 28.

Each case is one ioctl, in which the kernel does all of the work. Sizes and variations are those of
the kernel's tools/usb/hcd-tests.sh, the counts less, as this runs under emulation. Writes each case
as a step and its result as a note to the CHANNEL (see tests/vm/run); exits 1 if any case failed.
"""

import ctypes
import errno
import fcntl
import os
import struct
import sys
import time


def iowr(kind, number, size):
    return 3 << 30 | size << 16 | ord(kind) << 8 | number


# struct usbtest_param of testusb.c: test_num, iterations, length, vary, sglen, duration (2 longs).
PARAM = struct.Struct("5I4xqq")
USBTEST_REQUEST = iowr("U", 100, PARAM.size)
# struct usbdevfs_ioctl: interface, code, data.
WRAPPER = struct.Struct("iiP")
USBDEVFS_IOCTL = iowr("U", 18, WRAPPER.size)

DEFAULT = dict(count=1000, size=2048, vary=512, entries=32)
PARAMETERS = {
    0: dict(count=1),
    3: dict(vary=421),
    5: dict(count=200),
    6: dict(count=200),
    7: dict(count=200, vary=579),
    8: dict(count=200),
    10: dict(count=200),
    11: dict(count=500),
    12: dict(count=500),
    13: dict(count=300),
    14: dict(size=256, vary=1),
    17: dict(count=100),
    18: dict(count=100),
    19: dict(count=100),
    20: dict(count=100),
    21: dict(count=100, size=256, vary=1),
    24: dict(count=200),
    # The two throughput cases.
    27: dict(count=50),
    28: dict(count=50),
    29: dict(count=200),
}


def cases_of(text):
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def run_case(fd, case, packet, size):
    parameters = DEFAULT | PARAMETERS.get(case, {})
    if case in (27, 28):
        parameters["size"] = size
    if case in (4, 8):
        # Reads of whole packets only: the gadget sends whole buffers, and data beyond the request
        # would be babble.
        parameters["vary"] = packet
    data = ctypes.create_string_buffer(
        PARAM.pack(
            case,
            parameters["count"],
            parameters["size"],
            parameters["vary"],
            parameters["entries"],
            0,
            0,
        ),
        PARAM.size,
    )
    wrapper = WRAPPER.pack(0, ctypes.c_int32(USBTEST_REQUEST).value, ctypes.addressof(data))
    fcntl.ioctl(fd, USBDEVFS_IOCTL, wrapper)


def attribute(device, name):
    with open(f"/sys/bus/usb/devices/{device}/{name}", encoding="ascii") as file:
        return file.read().strip()


def main(device, cases, channel_path, size=16384):
    node = f"/dev/bus/usb/{int(attribute(device, 'busnum')):03}/{int(attribute(device, 'devnum')):03}"
    packet = 1024 if int(attribute(device, "speed")) >= 5000 else 512
    fd = os.open(node, os.O_RDWR)
    failed = 0

    def tell(line):
        print(line, flush=True)
        with open(channel_path, "w", encoding="ascii") as channel:
            channel.write(line + "\n")

    for case in cases_of(cases):
        tell(f"STEP usbtest case {case}")
        started = time.monotonic()
        try:
            run_case(fd, case, packet, int(size))
        except OSError as error:
            failed += 1
            name = errno.errorcode.get(error.errno, "?")
            tell(f"NOTE case {case} FAIL {name} ({error.strerror})")
        else:
            tell(f"NOTE case {case} pass ({time.monotonic() - started:.1f} s)")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
