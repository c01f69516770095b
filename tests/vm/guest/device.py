#!/usr/bin/env python3
"""A device made of a program: an exporter that vhci attaches, so that the guest has a device with any
descriptors, which neither QEMU nor a gadget can be.

  device.py PORT long BYTES             a configuration of so many bytes: alternate settings and descriptors
                                        of a class, and last in it the interface that works, a bulk loopback
  device.py PORT odd                    interface numbers with gaps, strings with every sort of character,
                                        class-specific descriptors where they are not expected
  device.py PORT mute                   a bulk loopback that answers no GET_DESCRIPTOR once it was configured
  device.py PORT speaker SPEED FILE     UAC1, an isochronous OUT endpoint of bInterval 4, as the kernel's UAC1
                                        gadget has at full speed, too; SPEED is full or high; what arrives goes
                                        to FILE, and the intervals that the SUBMITs have to FILE.intervals

It says "listening" when it does. What is not one of its requests is a stall, as it would be of a real one.
"""

import collections
import heapq
import select
import socket
import struct
import sys
import time

OP = struct.Struct(">HHI")
OP_IMPORT, OP_DEVLIST, REQUEST = 3, 5, 0x8000
COMMAND = struct.Struct(">IIIII Iiiii 8s")
REPLY = struct.Struct(">IIIII iiiii 8x")
PACKET = struct.Struct(">IIIi")
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
EPIPE, ECONNRESET = -32, -104
SPEEDS = {"full": 2, "high": 3}

DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT = 1, 2, 3, 4, 5
CLASS_SPECIFIC = 0x24
BULK, ISOCHRONOUS, INTERRUPT = 2, 1, 3

Urb = collections.namedtuple("Urb", "seqnum address length data setup interval packets")


# ---- Descriptors ---------------------------------------------------------------------------------


def interface(number, setting, endpoints, class_=(0xFF, 0, 0), name=0):
    return struct.pack("9B", 9, INTERFACE, number, setting, endpoints, *class_, name)


def endpoint(address, kind, packet, interval=0):
    return struct.pack("<BBBBHB", 7, ENDPOINT, address, kind, packet, interval)


def class_specific(kind, body):
    return bytes((2 + len(body), kind)) + body


def configuration(interfaces, body):
    total = 9 + len(body)
    return struct.pack("<BBHBBBBB", 9, CONFIGURATION, total, interfaces, 1, 0, 0x80, 50) + body


def filler(length):
    """Descriptors of a class, so many bytes in all."""
    pieces = []
    while length:
        # Avoids a last descriptor of a single byte.
        size = min(length, 255) if length != 256 else 200
        pieces.append(class_specific(CLASS_SPECIFIC, bytes(size - 2)))
        length -= size
    return b"".join(pieces)


# ---- Devices -------------------------------------------------------------------------------------


class Device:
    """Answers to standard requests; what else there is, its heirs know."""

    speed = SPEEDS["high"]
    product = 0x0001
    strings = ("usbferry", "a device made of a program", "PROGRAM")

    def __init__(self):
        self.configuration = self.describe()
        self.setting = 0
        self.replies = []
        self.due = []

    def descriptor(self):
        packet = 64
        return struct.pack(
            "<BBHBBBBHHHBBBB", 18, DEVICE, 0x0200, 0, 0, 0, packet, 0x1209, self.product, 0x0100, 1, 2, 3, 1
        )

    def string(self, index):
        if index == 0:
            return struct.pack("<BBH", 4, STRING, 0x0409)
        if index > len(self.strings):
            return None
        text = self.strings[index - 1].encode("utf-16-le", "surrogatepass")
        return bytes((2 + len(text), STRING)) + text

    def control(self, setup, data):
        """What the device says to a request; None is a stall."""
        kind, request, value, index, length = struct.unpack("<BBHHH", setup)
        if (kind, request) == (0x80, 6):
            what, number = value >> 8, value & 0xFF
            answers = {
                DEVICE: self.descriptor,
                CONFIGURATION: lambda: self.configuration,
                STRING: lambda: self.string(number),
            }
            answer = answers.get(what, lambda: None)()
            return answer if answer is None else answer[:length]
        if (kind & 0x9F, request) in ((0x80, 0), (0x81, 0), (0x82, 0)):
            return bytes(2)
        if (kind, request) == (0x80, 8):
            return bytes((self.setting,))
        if (kind, request) == (0x00, 9):
            self.setting = value
            return b""
        if (kind, request) in ((0x01, 11), (0x02, 1), (0x00, 1), (0x00, 3)):
            return b""
        return self.class_request(kind, request, value, index, data)

    def class_request(self, kind, request, value, index, data):
        return None

    def submit(self, urb):
        if urb.address & 0x0F == 0:
            answer = self.control(urb.setup, urb.data)
            if answer is None:
                self.reply(urb, EPIPE)
            else:
                self.reply(urb, 0, answer, None if urb.address & 0x80 else urb.length)
        else:
            self.transfer(urb)

    def transfer(self, urb):
        self.reply(urb, EPIPE)

    def reply(self, urb, status=0, data=b"", actual=None):
        actual = len(data) if actual is None else actual
        packets = b""
        for offset, length in urb.packets:
            packets += PACKET.pack(offset, length, length, 0)
        header = REPLY.pack(RET_SUBMIT, urb.seqnum, 0, 0, 0, status, actual, 0, len(urb.packets), 0)
        self.replies.append(header + data + packets)

    def later(self, when, urb, actual):
        heapq.heappush(self.due, (when, urb.seqnum, urb, actual))

    def run_due(self):
        while self.due and self.due[0][0] <= time.monotonic():
            _, _, urb, actual = heapq.heappop(self.due)
            self.reply(urb, 0, b"", actual)

    def unlink(self, seqnum):
        """Whether the URB was still pending; None is no answer."""
        left = [entry for entry in self.due if entry[1] != seqnum]
        found = len(left) != len(self.due)
        heapq.heapify(left)
        self.due = left
        return found


class Loopback(Device):
    """What comes in on OUT endpoint 1 goes out on IN endpoint 1."""

    def __init__(self):
        super().__init__()
        self.held = bytearray()
        self.readers = collections.deque()

    def transfer(self, urb):
        if urb.address == 0x01:
            self.held += urb.data
            self.reply(urb, 0, b"", urb.length)
        elif urb.address == 0x81:
            self.readers.append(urb)
        else:
            self.reply(urb, EPIPE)
        while self.held and self.readers:
            urb = self.readers.popleft()
            self.reply(urb, 0, bytes(self.held[: urb.length]))
            del self.held[: urb.length]

    def unlink(self, seqnum):
        found = [urb for urb in self.readers if urb.seqnum == seqnum]
        for urb in found:
            self.readers.remove(urb)
        return bool(found)


LOOPBACK_ENDPOINTS = endpoint(0x81, BULK, 512) + endpoint(0x01, BULK, 512)


class Long(Loopback):
    product = 0x0002

    def __init__(self, length):
        self.length = int(length)
        super().__init__()

    def describe(self):
        settings = b"".join(
            interface(0, setting, 1) + endpoint(0x82, ISOCHRONOUS, 16 * setting, 4)
            for setting in range(1, 60)
        )
        last = interface(1, 0, 2) + LOOPBACK_ENDPOINTS
        body = interface(0, 0, 0) + settings
        return configuration(2, body + filler(self.length - 9 - len(body) - len(last)) + last)


class Mute(Loopback):
    """A device that a host can use, and another host that gets it from that one can't."""

    product = 0x0005

    def describe(self):
        return configuration(1, interface(0, 0, 2) + LOOPBACK_ENDPOINTS)

    def control(self, setup, data):
        if self.setting and setup[1] == 6:
            return None
        return super().control(setup, data)


class Odd(Loopback):
    product = 0x0003
    # A line break, quotes, a slash, invalid UTF-16, and the longest possible string.
    strings = ("new\nline \"'<&>\\/", "\u00e4\u4e2d\U0001f600 \ud800 \u0007", "0" * 126)

    def describe(self):
        body = class_specific(0x0B, bytes((200, 2, 0xFF, 0, 0, 0)))
        body += interface(200, 0, 0, name=9) + class_specific(0x41, b"junk") + interface(200, 1, 1)
        body += endpoint(0x83, INTERRUPT, 8, 16) + class_specific(0x25, b"more junk")
        body += interface(7, 0, 2) + LOOPBACK_ENDPOINTS
        return configuration(2, body)


class Speaker(Device):
    """Takes a packet of each isochronous URB in an interval, as a host controller would send it."""

    product = 0x0004

    def __init__(self, speed, path):
        self.speed = SPEEDS[speed]
        # A frame, or eight microframes.
        self.unit = 0.001 if speed == "full" else 0.000125
        self.sound = open(path, "wb", buffering=0)
        self.path = path
        self.end = 0
        super().__init__()

    def describe(self):
        audio = (
            class_specific(CLASS_SPECIFIC, bytes((1, 0, 1, 30, 0, 1, 1)))
            # From the host, two channels; to a speaker.
            + class_specific(CLASS_SPECIFIC, bytes((2, 1, 0x01, 0x01, 0, 2, 3, 0, 0, 0)))
            + class_specific(CLASS_SPECIFIC, bytes((3, 2, 0x01, 0x03, 0, 1, 0)))
        )
        audio = audio[:5] + struct.pack("<H", len(audio)) + audio[7:]
        stream = (
            class_specific(CLASS_SPECIFIC, bytes((1, 1, 1, 1, 0)))
            # PCM, two channels, 16 bits, 48 kHz.
            + class_specific(CLASS_SPECIFIC, bytes((2, 1, 2, 2, 16, 1, 0x80, 0xBB, 0)))
            + struct.pack("<BBBBHBBB", 9, ENDPOINT, 0x01, ISOCHRONOUS | 0x08, 192, 4, 0, 0)
            + class_specific(0x25, bytes((1, 0, 0, 0, 0)))
        )
        body = interface(0, 0, 0, (1, 1, 0)) + audio
        body += interface(1, 0, 0, (1, 2, 0)) + interface(1, 1, 1, (1, 2, 0)) + stream
        return configuration(2, body)

    def transfer(self, urb):
        if not urb.packets:
            return self.reply(urb, EPIPE)
        with open(self.path + ".intervals", "a+", encoding="ascii") as file:
            file.seek(0)
            if f"{urb.interval}\n" not in file:
                file.write(f"{urb.interval}\n")
        for offset, length in urb.packets:
            self.sound.write(urb.data[offset : offset + length])
        self.end = max(self.end, time.monotonic()) + len(urb.packets) * urb.interval * self.unit
        return self.later(self.end, urb, urb.length)


# ---- The protocol --------------------------------------------------------------------------------


def receive(connection, length):
    data = connection.recv(length, socket.MSG_WAITALL) if length else b""
    if len(data) < length:
        raise EOFError
    return data


def record(device):
    path, busid = b"/sys/devices/program/1-1".ljust(256, b"\0"), b"1-1".ljust(32, b"\0")
    fields = struct.unpack("<HHH", device.descriptor()[8:14])
    numbers = struct.pack(">III", 1, 2, device.speed) + struct.pack(">HHH", *fields)
    return path + busid + numbers + bytes((0, 0, 0, 0, 1, device.configuration[4]))


def receive_command(connection, device):
    fields = COMMAND.unpack(receive(connection, COMMAND.size))
    command, seqnum, _, direction, number = fields[:5]
    if command == CMD_UNLINK:
        found = device.unlink(fields[5])
        if found is None:
            return
        status = ECONNRESET if found else 0
        device.replies.append(REPLY.pack(RET_UNLINK, seqnum, 0, 0, 0, status, 0, 0, 0, 0))
        return
    _, length, _, count, interval, setup = fields[5:]
    data = receive(connection, 0 if direction else length)
    packets = ()
    if 0 < count <= 1024:
        table = receive(connection, PACKET.size * count)
        packets = tuple((offset, size) for offset, size, _, _ in PACKET.iter_unpack(table))
    device.submit(Urb(seqnum, direction << 7 | number, length, data, setup, interval, packets))


def serve(connection, device):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _, code, _ = OP.unpack(receive(connection, OP.size))
    if code == REQUEST | OP_DEVLIST:
        interfaces = bytes(4 * device.configuration[4])
        connection.sendall(OP.pack(0x0111, OP_DEVLIST, 0) + struct.pack(">I", 1))
        connection.sendall(record(device) + interfaces)
        return
    receive(connection, 32)
    connection.sendall(OP.pack(0x0111, OP_IMPORT, 0) + record(device))
    perform(connection, device)


def perform(connection, device):
    """What comes after an import, until the connection ends."""
    while True:
        timeout = max(device.due[0][0] - time.monotonic(), 0) if device.due else None
        if select.select((connection,), (), (), timeout)[0]:
            receive_command(connection, device)
        device.run_due()
        connection.sendall(b"".join(device.replies))
        device.replies.clear()


def main(port, kind, *arguments):
    device = {"long": Long, "mute": Mute, "odd": Odd, "speaker": Speaker}[kind](*arguments)
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    serve(connection, device)
                except (EOFError, ConnectionError):
                    pass


if __name__ == "__main__":
    main(*sys.argv[1:])
