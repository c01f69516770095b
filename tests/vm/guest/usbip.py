#!/usr/bin/env python3
"""A small USB/IP client without a kernel behind it, for what a real client's kernel never does.

  usbip.py HOST list                    a line for each device: busid vid:pid
  usbip.py HOST import BUSID            imports and leaves; prints the status, 0 if that worked
  usbip.py HOST await BUSID SECONDS     imports again and again while the device is busy: says "busy"
                                        each time, "free TIME" (of the clock) in the end

HOST is an address or ADDRESS:PORT. Other programs import this file: `Client` speaks the protocol,
`Load` keeps URBs in flight.
"""

import collections
import socket
import struct
import sys
import time

VERSION = 0x0111
OP_IMPORT, OP_DEVLIST = 3, 5
REQUEST = 0x8000
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
OUT, IN = 0, 1
BULK = 2

ST_OK, ST_NA, ST_DEV_BUSY, ST_DEV_ERR, ST_NODEV = range(5)

OP = struct.Struct(">HHI")
# Command, seqnum, devid, direction, endpoint; flags, length, start frame, packets, interval; setup.
SUBMIT = struct.Struct(">IIIII Iiiii 8s")
UNLINK = struct.Struct(">IIIII I 24x")
# ...; status, actual length, start frame, packets, errors; padding.
REPLY = struct.Struct(">IIIII iiiii 8x")
DEVICE_LEN = 312

Device = collections.namedtuple("Device", "busid vendor product devid speed interfaces")
Reply = collections.namedtuple("Reply", "command seqnum status address data actual_length")
Endpoint = collections.namedtuple("Endpoint", "interface address kind packet")


class Refused(Exception):
    """The server refuses an import."""

    def __init__(self, busid, status):
        super().__init__(f"import of {busid}: status {status}")
        self.status = status


class Ended(Exception):
    """The server closed the connection; `partial` bytes of a message came before."""

    def __init__(self, partial=0):
        super().__init__(f"closed by the server after {partial} bytes of a message")
        self.partial = partial


def address_of(text):
    host, _, port = text.partition(":")
    return host, int(port or 3240)


def device_of(record):
    busid = record[256:288].split(b"\0")[0].decode()
    busnum, devnum, speed, vendor, product = struct.unpack_from(">IIIHH", record, 0x120)
    return Device(busid, vendor, product, busnum << 16 | devnum, speed, record[0x137])


class Client:
    """A connection. Calls block, for `timeout` seconds at most."""

    def __init__(self, host, timeout=30, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address_of(host))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.device = None
        self.seqnum = 0
        # Unanswered submissions: seqnum to (address, length, time of sending).
        self.pending = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def abort(self):
        """Closes with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def receive(self, length):
        data = bytearray(length)
        view, filled = memoryview(data), 0
        while filled < length:
            count = self.socket.recv_into(view[filled:])
            if not count:
                raise Ended(filled)
            filled += count
        return data

    # ---- Before the import -------------------------------------------------------------------

    def request(self, op, body=b""):
        self.socket.sendall(OP.pack(VERSION, REQUEST | op, 0) + body)
        version, code, status = OP.unpack(self.receive(OP.size))
        if (version, code) != (VERSION, op):
            raise ValueError(f"reply {version:#x} {code:#x} to request {op}")
        return status

    def devlist(self):
        self.request(OP_DEVLIST)
        devices = []
        for _ in range(struct.unpack(">I", self.receive(4))[0]):
            devices.append(device_of(self.receive(DEVICE_LEN)))
            self.receive(4 * devices[-1].interfaces)
        return devices

    def attach(self, busid):
        """Imports the device."""
        status = self.request(OP_IMPORT, busid.encode().ljust(32, b"\0"))
        if status:
            raise Refused(busid, status)
        self.device = device_of(self.receive(DEVICE_LEN))
        return self.device

    # ---- After it ------------------------------------------------------------------------------

    def submit(self, address, data_or_length=0, setup=bytes(8), flags=0):
        """Submits a URB to the endpoint address, with data (OUT) or a length (IN)."""
        direction, data = (address >> 7), b""
        length = data_or_length
        if direction == OUT and not isinstance(data_or_length, int):
            data, length = data_or_length, len(data_or_length)
        self.seqnum += 1
        header = SUBMIT.pack(
            CMD_SUBMIT,
            self.seqnum,
            self.device.devid,
            direction,
            address & 0x0F,
            flags,
            length,
            0,
            0,
            0,
            setup,
        )
        self.socket.sendall(header + data)
        self.pending[self.seqnum] = (address, length, time.time())
        return self.seqnum

    def unlink(self, target):
        self.seqnum += 1
        self.socket.sendall(
            UNLINK.pack(CMD_UNLINK, self.seqnum, self.device.devid, 0, 0, target)
        )
        return self.seqnum

    def reply(self):
        """The next reply; whatever is not one is a ValueError."""
        header = self.receive(REPLY.size)
        command, seqnum, *_, status, actual, _, _, _ = REPLY.unpack(header)
        if command == RET_UNLINK:
            return Reply(command, seqnum, status, None, b"", 0)
        if command != RET_SUBMIT or seqnum not in self.pending:
            raise ValueError(f"a reply nobody waits for: command {command}, seqnum {seqnum}")
        address, length, _ = self.pending.pop(seqnum)
        if not 0 <= actual <= length:
            raise ValueError(f"{actual} bytes for a URB of {length}")
        data = self.receive(actual) if address & 0x80 else b""
        return Reply(command, seqnum, status, address, data, actual)

    def control(self, request_type, request, value, index, data_or_length=0):
        """A control transfer with nothing else in flight: (status, data)."""
        length = data_or_length if isinstance(data_or_length, int) else len(data_or_length)
        setup = struct.pack("<BBHHH", request_type, request, value, index, length)
        seqnum = self.submit(request_type & 0x80, data_or_length, setup)
        reply = self.reply()
        if reply.seqnum != seqnum:
            raise ValueError(f"reply to {reply.seqnum} instead of {seqnum}")
        return reply.status, bytes(reply.data)

    def device_descriptor(self):
        status, data = self.control(0x80, 6, 0x0100, 0, 18)
        if status or len(data) != 18:
            raise ValueError(f"the device descriptor: status {status}, {len(data)} bytes")
        return data

    def endpoints(self):
        """The endpoints of the first configuration, alternate settings 0."""
        status, data = self.control(0x80, 6, 0x0200, 0, 1024)
        if status:
            raise ValueError(f"the configuration descriptor: status {status}")
        found, offset, interface, alternate = [], 0, None, 0
        while offset < len(data):
            length, kind = data[offset], data[offset + 1]
            if kind == 4:
                interface, alternate = data[offset + 2], data[offset + 3]
            elif kind == 5 and alternate == 0:
                address, attributes, packet = struct.unpack_from("<BBH", data, offset + 2)
                found.append(Endpoint(interface, address, attributes & 3, packet))
            offset += length
        return found

    def bulk(self, interface=0):
        """The addresses of an interface's first bulk endpoints: IN, OUT."""
        mine = [e.address for e in self.endpoints() if e.kind == BULK and e.interface == interface]
        return next(a for a in mine if a & 0x80), next(a for a in mine if not a & 0x80)


class Load:
    """Keeps URBs in flight, and counts what ends how."""

    def __init__(self, client, length=16384):
        self.client = client
        self.length = length
        self.data = bytes(length)
        self.statuses = collections.Counter()
        self.bytes = {IN: 0, OUT: 0}

    def start(self, address, count=1):
        for _ in range(count):
            self.client.submit(address, self.length if address & 0x80 else self.data)

    def step(self, again=True):
        """Takes one reply, and submits its URB again if it ended well."""
        reply = self.client.reply()
        self.statuses[reply.status] += 1
        self.bytes[reply.address >> 7] += reply.actual_length
        if again and reply.status == 0:
            self.start(reply.address)
        return reply


def import_status(host, busid):
    with Client(host) as client:
        try:
            client.attach(busid)
        except Refused as refused:
            return refused.status
        return ST_OK


def await_free(host, busid, seconds):
    end = time.monotonic() + float(seconds)
    while (status := import_status(host, busid)) == ST_DEV_BUSY:
        print("busy", flush=True)
        if time.monotonic() > end:
            sys.exit(f"still busy after {seconds} s")
        time.sleep(0.05)
    if status:
        sys.exit(f"status {status}")
    print(f"free {time.time():.3f}")


def main(host, command, *arguments):
    if command == "list":
        with Client(host) as client:
            for device in client.devlist():
                print(f"{device.busid} {device.vendor:04x}:{device.product:04x}")
    elif command == "import":
        print(import_status(host, *arguments))
    elif command == "await":
        await_free(host, *arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
