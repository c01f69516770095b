#!/usr/bin/env python3
"""The firmware of a phone or of a board, on FunctionFS, as far as adb, fastboot and dfu-util ask.

  firmware.py DIRECTORY adb             prints a line for each command of a shell; ends at "reboot"
  firmware.py DIRECTORY fastboot FILE   FILE gets what is flashed; ends at "reboot"
  firmware.py DIRECTORY run             a board in service: ends when it is told to detach
  firmware.py DIRECTORY dfu FILE        a board in DFU mode: FILE gets what is downloaded, and is what is
                                        uploaded; ends after the manifestation

DIRECTORY is where FunctionFS is mounted. Says "ready" once the gadget may be bound to a controller, and
"ended" at the end, when the caller is to plug the device in again as the next firmware.
"""

import errno
import os
import signal
import struct
import sys

INTERFACE, ENDPOINT = 4, 5
BULK, INTERRUPT = 2, 3
MAGIC_DESCRIPTORS, MAGIC_STRINGS = 3, 2
HAS_FULL_SPEED, HAS_HIGH_SPEED = 1, 2
EVENT = struct.Struct("<BBHHHB3x")
EVENT_SETUP = 4


def interface(endpoints, class_):
    return struct.pack("9B", 9, INTERFACE, 0, 0, endpoints, *class_, 1)


def endpoint(address, kind, packet, interval=0):
    return struct.pack("<BBBBHB", 7, ENDPOINT, address, kind, packet, interval)


def give(directory, per_speed, name):
    """Gives FunctionFS the descriptors and a string; returns ep0."""
    ep0 = os.open(os.path.join(directory, "ep0"), os.O_RDWR)
    counts = b"".join(struct.pack("<I", len(descriptors)) for descriptors in per_speed)
    body = counts + b"".join(b"".join(descriptors) for descriptors in per_speed)
    flags = HAS_FULL_SPEED | HAS_HIGH_SPEED
    os.write(ep0, struct.pack("<III", MAGIC_DESCRIPTORS, 12 + len(body), flags) + body)
    text = struct.pack("<H", 0x0409) + name.encode() + b"\0"
    os.write(ep0, struct.pack("<IIII", MAGIC_STRINGS, 16 + len(text), 1, 1) + text)
    return ep0


def pipes(directory, class_, name):
    """An interface with a bulk endpoint each way: ep0, and the files to read and to write."""
    per_speed = [
        [interface(2, class_), endpoint(0x01, BULK, packet), endpoint(0x81, BULK, packet)]
        for packet in (64, 512)
    ]
    ep0 = give(directory, per_speed, name)
    opened = [os.open(os.path.join(directory, file), os.O_RDWR) for file in ("ep1", "ep2")]
    print("ready", flush=True)
    return ep0, *opened


def again(call, *arguments):
    """A call of an endpoint, again when the host has set the configuration anew meanwhile."""
    while True:
        try:
            return call(*arguments)
        except OSError as error:
            if error.errno not in (errno.ESHUTDOWN, errno.ECONNRESET):
                raise


# ---- adb -----------------------------------------------------------------------------------------

MESSAGE = struct.Struct("<4sIIIII")


class Adb:
    """A phone for adb: one stream at a time, a shell that knows "echo"."""

    banner = b"device::ro.product.name=usbferry;ro.product.model=phone;ro.product.device=phone;"

    def __init__(self, directory):
        self.ep0, self.out, self.into = pipes(directory, (0xFF, 0x42, 0x01), "adb")

    def send(self, command, first, second, data=b""):
        check = sum(data) & 0xFFFFFFFF
        magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
        again(os.write, self.into, MESSAGE.pack(command, first, second, len(data), check, magic))
        if data:
            again(os.write, self.into, data)

    def receive(self):
        command, first, second, length, _, _ = MESSAGE.unpack(again(os.read, self.out, 16384)[:24])
        data = b""
        while len(data) < length:
            data += again(os.read, self.out, 16384)
        return command, first, second, data

    def run(self):
        while True:
            command, first, _, data = self.receive()
            if command == b"CNXN":
                self.send(b"CNXN", 0x01000000, 4096, self.banner)
            elif command == b"OPEN":
                service = data.rstrip(b"\0").decode()
                self.send(b"OKAY", 1, first)
                if service.startswith("reboot"):
                    self.send(b"CLSE", 1, first)
                    return
                kind, _, line = service.partition(":")
                print(line, flush=True)
                text = line.removeprefix("echo ") + "\n" if kind.startswith("shell") else ""
                self.send(b"WRTE", 1, first, text.encode())
            elif command == b"OKAY":
                self.send(b"CLSE", 1, first)


# ---- fastboot ------------------------------------------------------------------------------------


class Fastboot:
    """A bootloader for fastboot."""

    variables = {"version": "0.4", "product": "phone", "max-download-size": "0x00400000"}

    def __init__(self, directory, path):
        self.ep0, self.out, self.into = pipes(directory, (0xFF, 0x42, 0x03), "fastboot")
        self.path = path

    def answer(self, text):
        again(os.write, self.into, text.encode())

    def download(self, length):
        self.answer(f"DATA{length:08x}")
        data = b""
        while len(data) < length:
            data += again(os.read, self.out, 16384)
        return data

    def run(self):
        data = b""
        while True:
            command, _, value = again(os.read, self.out, 512).decode().partition(":")
            if command == "download":
                data = self.download(int(value, 16))
            elif command == "flash":
                with open(self.path, "wb") as file:
                    file.write(data)
            elif command == "getvar":
                self.answer("OKAY" + self.variables.get(value, ""))
                continue
            self.answer("OKAY")
            if command.startswith("reboot"):
                return


# ---- DFU -----------------------------------------------------------------------------------------

DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)
APP_IDLE, DFU_IDLE, DNLOAD_IDLE, MANIFEST_SYNC, MANIFEST_WAIT, UPLOAD_IDLE = 0, 2, 5, 6, 8, 9


class Dfu:
    """A board with DFU, in service (protocol 1) or in DFU mode (protocol 2)."""

    block = 1024

    def __init__(self, directory, path=None):
        self.path = path
        self.state = DFU_IDLE if path else APP_IDLE
        self.data = b""
        # Without the functional descriptor, which Linux before 6.12 does not take from FunctionFS:
        # dfu-util is to be told the size of a block.
        class_ = (0xFE, 0x01, 2 if path else 1)
        self.ep0 = give(directory, [[interface(0, class_)]] * 2, "firmware")
        print("ready", flush=True)

    def status(self):
        if self.state == MANIFEST_SYNC:
            self.state = MANIFEST_WAIT
            with open(self.path, "wb") as file:
                file.write(self.data)
        return struct.pack("<B3sBB", 0, b"\x01\0\0", self.state, 0)

    def take(self, request, data):
        """A request with data to the board, or without data."""
        if request == DNLOAD:
            if self.state == DFU_IDLE:
                self.data = b""
            self.data += data
            self.state = DNLOAD_IDLE if data else MANIFEST_SYNC
        elif request in (CLRSTATUS, ABORT):
            self.state = DFU_IDLE

    def give(self, request, value, length):
        """The answer to a request for data."""
        if request == GETSTATUS:
            return self.status()
        if request == GETSTATE:
            return bytes((self.state,))
        if request == UPLOAD:
            with open(self.path, "rb") as file:
                file.seek(value * self.block)
                data = file.read(length)
            self.state = UPLOAD_IDLE if len(data) == length else DFU_IDLE
            return data
        return b""

    def run(self):
        while True:
            kind, request, value, _, length, event = EVENT.unpack(os.read(self.ep0, EVENT.size))
            if event != EVENT_SETUP:
                continue
            if kind & 0x80:
                os.write(self.ep0, self.give(request, value, length)[:length])
            else:
                self.take(request, os.read(self.ep0, length))
            if request == DETACH or self.state == MANIFEST_WAIT:
                return


def main(directory, kind, *arguments):
    kinds = {"adb": Adb, "fastboot": Fastboot, "run": Dfu, "dfu": Dfu}
    device = kinds[kind](directory, *arguments)
    device.run()
    print("ended", flush=True)
    # The files stay open until the gadget is unplugged, so that the last answer arrives.
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
