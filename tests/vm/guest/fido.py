#!/usr/bin/env python3
"""The firmware of a FIDO key, as far as fido2-token -I asks it: fido.py /dev/hidgN

CTAPHID of the FIDO specification: INIT, PING and CBOR with authenticatorGetInfo. Says "listening" when it does.
"""

import os
import struct
import sys

REPORT = 64
PING, INIT, CBOR, ERROR = 0x81, 0x86, 0x90, 0xBF
GET_INFO = 4
CAN_CBOR, NO_MSG = 0x04, 0x08


def cbor_text(text):
    return bytes((0x60 | len(text),)) + text.encode()


def info():
    """More than a report takes."""
    versions = ["FIDO_2_0"] + [f"VERSION_{number}" for number in range(2, 12)]
    entries = bytes((0x01, 0x80 | len(versions))) + b"".join(map(cbor_text, versions))
    entries += b"\x03\x50" + b"usbferry's key 1"
    entries += b"\x05\x19" + struct.pack(">H", 1200)
    return b"\x00\xa3" + entries


def read_message(fd):
    report = os.read(fd, REPORT)
    channel, command, length = struct.unpack(">IBH", report[:7])
    data = report[7:]
    while len(data) < length:
        data += os.read(fd, REPORT)[5:]
    return channel, command, data[:length]


def write_message(fd, channel, command, data):
    reports = [struct.pack(">IBH", channel, command, len(data)) + data[:57]]
    rest = data[57:]
    while rest:
        reports.append(struct.pack(">IB", channel, len(reports) - 1) + rest[:59])
        rest = rest[59:]
    for report in reports:
        os.write(fd, report.ljust(REPORT, b"\0"))


def answer(channel, command, data):
    if command == INIT:
        return INIT, data + struct.pack(">IBBBBB", 0x01020304, 2, 1, 0, 0, CAN_CBOR | NO_MSG)
    if command == CBOR and data[:1] == bytes((GET_INFO,)):
        return CBOR, info()
    if command == PING:
        return PING, data
    return ERROR, b"\x01"


def main(path):
    fd = os.open(path, os.O_RDWR)
    print("listening", flush=True)
    while True:
        channel, command, data = read_message(fd)
        write_message(fd, channel, *answer(channel, command, data))


if __name__ == "__main__":
    main(sys.argv[1])
