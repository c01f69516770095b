#!/usr/bin/env bash
# PyUSB finds no device by its serial number through PyPI's pyusb-usbip-backend, and raises no
# error: usb.core.find(serial_number=...) returns None for a device that has that very number, and
# dev.serial_number, dev.product and dev.manufacturer are None for all devices. The backend never
# asks a device for its device descriptor. It makes one up from the list of exports, which has
# neither the numbers of the strings nor bcdUSB nor bMaxPacketSize0 (OP_REP_DEVLIST in Linux's
# Documentation/usb/usbip_protocol.rst), and fills in 0, 0, 0, 2.00 and 64, on purpose by its
# comment. An index of 0 means that there is no such string (USB 2.0, section 9.6.1). So a program
# that tells two devices of a kind apart by their numbers, as test stands do, works with libusb, and
# with this backend it says that the device isn't there.
#
# Seen with pyusb-usbip-backend 0.0.1 and PyUSB 1.3.1. A server exports one device. The device's own
# answers, asked for over the same backend, are the right values.
#
# Output at the time of writing:
#   device: USB 1.10 packets 8 serial 4C530001 | PyUSB: USB 2.00 packets 64 serial None
#   find(idVendor=0x1209): found | find(serial_number="4C530001"): None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  pyusb-usbip-backend==0.0.1 pyusb==1.3.1 zeroconf==0.154.0 ifaddr==0.2.0

lines=$("$folder/venv/bin/python" - << 'PYTHON'
import socket
import struct
import threading

import usb.core
import usb.util
from usbip_backend.backend import get_backend

SERIAL = "4C530001".encode("utf-16-le")
DESCRIPTORS = {
    0x0100: bytes.fromhex("12 01 10 01 00 00 00 08 09 12 01 00 00 01 00 00 03 01"),
    0x0300: bytes.fromhex("04 03 09 04"),
    0x0303: bytes([2 + len(SERIAL), 3]) + SERIAL,
}
EXPORT = b"/sys/devices/usb1/1-1".ljust(256, b"\0") + b"1-1".ljust(32, b"\0")
EXPORT += struct.pack(">3I3H6B", 1, 2, 2, 0x1209, 1, 0x100, 0, 0, 0, 1, 1, 1)


def serve(stream):
    operation = struct.unpack(">HHI", stream.recv(8, socket.MSG_WAITALL))[1]
    if operation == 0x8005:
        stream.sendall(struct.pack(">HHII", 0x111, 5, 0, 1) + EXPORT + bytes([255, 0, 0, 0]))
        return
    stream.recv(32, socket.MSG_WAITALL)
    stream.sendall(struct.pack(">HHI", 0x111, 3, 0) + EXPORT)
    while header := stream.recv(48, socket.MSG_WAITALL):
        value, _, length = struct.unpack_from("<3H", header, 42)
        data = DESCRIPTORS[value][:length]
        answer = 3, struct.unpack_from(">I", header, 4)[0], 0, 0, 0, 0, len(data), 0, 0, 0
        stream.sendall(struct.pack(">10I8x", *answer) + data)


def accept(listener):
    while True:
        stream, _ = listener.accept()
        with stream:
            serve(stream)


def text(usb_version, packets, serial):
    return f"USB {usb_version >> 8:x}.{usb_version & 0xFF:02x} packets {packets} serial {serial}"


def found(**wanted):
    return "None" if usb.core.find(backend=backend, **wanted) is None else "found"


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
backend = get_backend(*listener.getsockname())
device = usb.core.find(backend=backend)
own = bytes(device.ctrl_transfer(0x80, 6, 0x0100, 0, 18))
right = text(struct.unpack_from("<H", own, 2)[0], own[7], usb.util.get_string(device, own[16]))
seen = text(device.bcdUSB, device.bMaxPacketSize0, device.serial_number)
print(f"device: {right} | PyUSB: {seen}")
print(
    f"find(idVendor=0x1209): {found(idVendor=0x1209)} |"
    f' find(serial_number="4C530001"): {found(serial_number="4C530001")}'
)
PYTHON
)
echo "$lines"
[[ $lines == 'device: USB 1.10 packets 8 serial 4C530001 | PyUSB: USB 2.00 packets 64 serial None
find(idVendor=0x1209): found | find(serial_number="4C530001"): None' ]]
