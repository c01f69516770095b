#!/usr/bin/env python3
"""A gadget that is pulled and put back, and imported at once each time, by one name after another.

  replugs.py HOST GADGET COUNT BOUND NAME...

GADGET is its configfs directory, and it is plugged in. The time of an import begins with the kernel's
message about the new device, as a program on this machine gets it (udev's source), and ends with the
answer to the import. Prints the times of imports, and how many imports came too early. Exits 1 if the
median is above BOUND ms.
"""

import os
import socket
import statistics
import sys
import time

from usbip import Client, Refused, ST_DEV_BUSY, ST_NA, ST_NODEV

NETLINK_KOBJECT_UEVENT = 15
SECONDS = 20


def read(gadget, name):
    with open(os.path.join(gadget, name), encoding="ascii") as file:
        return file.read().strip()


def write(gadget, name, value):
    with open(os.path.join(gadget, name), "w", encoding="ascii") as file:
        file.write(value + "\n")


class Announcements:
    """The kernel's messages about devices of one product, from now on."""

    def __init__(self, vendor, product):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)
        self.socket.bind((0, 1))
        self.socket.settimeout(SECONDS)
        self.product = f"PRODUCT={vendor:x}/{product:x}/".encode()

    def wait(self, action):
        """Waits for the message, and returns the time of its arrival."""
        while True:
            message = self.socket.recv(65536)
            now = time.monotonic()
            lines = message.split(b"\0")
            is_ours = any(line.startswith(self.product) for line in lines)
            # An image of the device on vhci has messages, too.
            if is_ours and b"DEVTYPE=usb_device" in lines and b"vhci" not in lines[0]:
                if b"ACTION=" + action in lines:
                    return now


def imported(host, name, product):
    """Imports as soon as possible; returns the attempts that came too early."""
    early = 0
    end = time.monotonic() + SECONDS
    while True:
        with Client(host) as client:
            try:
                client.attach(name)
            except Refused as refused:
                if refused.status not in (ST_NODEV, ST_DEV_BUSY, ST_NA) or time.monotonic() > end:
                    raise
                early += 1
                continue
            answered = time.monotonic()
            descriptor = client.device_descriptor()
        if int.from_bytes(descriptor[10:12], "little") != product:
            sys.exit(f"imported {descriptor.hex()} as {name}")
        return answered, early


def main(host, gadget, count, bound, names):
    vendor, product = (int(read(gadget, name), 16) for name in ("idVendor", "idProduct"))
    controller = read(gadget, "UDC")
    announcements = Announcements(vendor, product)
    times, early = [], 0
    for turn in range(count):
        write(gadget, "UDC", "")
        announcements.wait(b"remove")
        write(gadget, "UDC", controller)
        announced = announcements.wait(b"add")
        answered, attempts = imported(host, names[turn % len(names)], product)
        times.append(answered - announced)
        early += attempts
    times.sort()
    median, least, most = (1000 * time for time in (statistics.median(times), times[0], times[-1]))
    print(
        f"{count} imports, {median:.0f} ms in the median, {least:.0f} to {most:.0f} ms after the "
        f"kernel's message; {early} came too early"
    )
    if median > bound:
        sys.exit(f"imports took {median:.0f} ms in the median, not {bound}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
