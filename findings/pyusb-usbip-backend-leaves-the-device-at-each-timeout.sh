#!/usr/bin/env bash
# A read that finds no data in time makes PyPI's pyusb-usbip-backend leave the device: it hangs up
# instead of unlinking its request, and imports the device anew for the next call; 2 s behind the
# timeout asked for, since the backend counts on servers that end requests in time by themselves,
# for which the protocol has no field. Linux's exporter resets a device that its client leaves
# (stub_device_reset in drivers/usb/usbip/stub_dev.c), so what the program has set up in the device
# is gone, such as a serial port's speed, with the data that the device had for its client; another
# client may take the device in between. The program is told of a timeout, nothing else. Reading
# with a short timeout until there is something to read is the ordinary use of PyUSB, and its libusb
# backend cancels the one transfer and no more, for which USB/IP has USBIP_CMD_UNLINK
# (Documentation/usb/usbip_protocol.rst). The exception isn't PyUSB's USBTimeoutError either, which
# backends must raise (usb/core.py).
#
# Seen with pyusb-usbip-backend 0.0.1 and PyUSB 1.3.1. A server exports a serial adapter that has
# nothing to say, and notes what it sees of a program that sets the speed and reads twice.
#
# Output at the time of writing:
#   program: speed set, USBError 110, USBError 110
#   server: import, speed, read, left, import, read, left
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  pyusb-usbip-backend==0.0.1 pyusb==1.3.1 zeroconf==0.154.0 ifaddr==0.2.0

lines=$("$folder/venv/bin/python" - << 'PYTHON'
import queue
import socket
import struct
import threading

import usb.core
from usbip_backend.backend import get_backend

GET_DESCRIPTOR, GET_CONFIGURATION, SET_LINE_CODING = 0x06, 0x08, 0x20
CONFIGURATION = bytes.fromhex(
    "09 02 19 00 01 01 00 80 32  09 04 00 00 01 ff 00 00 00  07 05 81 02 40 00 00"
)
EXPORT = b"/sys/devices/usb1/1-1".ljust(256, b"\0") + b"1-1".ljust(32, b"\0")
EXPORT += struct.pack(">3I3H6B", 1, 2, 2, 0x1209, 1, 0x100, 0, 0, 0, 1, 1, 1)
seen = queue.Queue()


def serve(stream):
    operation = struct.unpack(">HHI", stream.recv(8, socket.MSG_WAITALL))[1]
    if operation == 0x8005:
        stream.sendall(struct.pack(">HHII", 0x111, 5, 0, 1) + EXPORT + bytes([255, 0, 0, 0]))
        return
    stream.recv(32, socket.MSG_WAITALL)
    seen.put("import")
    stream.sendall(struct.pack(">HHI", 0x111, 3, 0) + EXPORT)
    while header := stream.recv(48, socket.MSG_WAITALL):
        command, seqnum, _, _, endpoint = struct.unpack_from(">5I", header)
        request, length = header[41], struct.unpack_from("<H", header, 46)[0]
        if command == 2:
            seen.put("unlink")
            stream.sendall(struct.pack(">5Ii24x", 4, seqnum, 0, 0, 0, -104))
            continue
        if endpoint != 0:
            seen.put("read")  # A device without data: no reply.
            continue
        data, actual = b"", length
        if request == SET_LINE_CODING:
            seen.put("speed")
            stream.recv(length, socket.MSG_WAITALL)
        elif request == GET_CONFIGURATION:
            data = b"\1"
        elif request == GET_DESCRIPTOR:
            data = CONFIGURATION[:length]
            actual = len(data)
        stream.sendall(struct.pack(">10I8x", 3, seqnum, 0, 0, 0, 0, actual, 0, 0, 0) + data)
    seen.put("left")


def accept(listener):
    while True:
        stream, _ = listener.accept()
        with stream:
            serve(stream)


def read():
    try:
        device.read(0x81, 64, timeout=10)
    except usb.core.USBError as error:
        return f"{type(error).__name__} {error.errno}"


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
device = usb.core.find(backend=get_backend(*listener.getsockname()))
device.ctrl_transfer(0x21, SET_LINE_CODING, 0, 0, struct.pack("<I3B", 115200, 0, 0, 8))
print(f"program: speed set, {read()}, {read()}")
print("server:", ", ".join(seen.get(timeout=10) for _ in range(7)))
PYTHON
)
echo "$lines"
[[ $lines == "program: speed set, USBError 110, USBError 110
server: import, speed, read, left, import, read, left" ]]
