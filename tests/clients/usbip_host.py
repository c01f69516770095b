"""The host drivers of `usbip` 0.7.0, which write header and payload of a URB apart, without
TCP_NODELAY: data both ways, a disk, isochronous packets both ways, stalls."""

import statistics
import struct
import sys
import time

from support.simulated import ADDRESS, ALL, DISK, LOOPBACK, MICROPHONE, PORT, SERIAL, VENDOR
from support.simulated import check, pattern

# The package's C library has the same name, so this file is not called usbip.py.
from usbip import host
from usbip.classes.host.cdc_acm import CDCDriver
from usbip.classes.host.msc import MSCDriver
from usbip.core import Stall
from usbip.transport import USBIP

server = USBIP(ADDRESS, PORT)


def list_devices():
    devices = {info["busid"]: info for info in host.list_devices(server)}
    ids = {busid: (info["idVendor"], info["idProduct"]) for busid, info in devices.items()}
    check("devices", ids, {f"1-{n + 1}": (VENDOR, product) for n, product in enumerate(ALL)})


def serial():
    with CDCDriver.open(VENDOR, SERIAL, busid="1-1", transport=server) as driver:
        handle = driver.handle
        for length in (1, 64, 511, 512, 513, 4096):
            data = pattern(length, length)
            check("bytes taken", driver.write(data), length)
            check("an echo", driver.read(length), data)
        coding = struct.pack("<IBBB", 115200, 2, 1, 7)
        check("a line coding", handle.control(0x21, 0x20, 0, 0, coding), 7)
        check("the line coding", handle.control(0xA1, 0x21, 0, 0, 7), coding)
        handle.control(0x21, 0x22, 3, 0, b"")
        notification = handle.interrupt_in(0x82, 16)
        check("the lines", notification, bytes([0xA1, 0x20, 0, 0, 0, 0, 2, 0, 3, 0]))
        try:
            handle.control(0x21, 0x20, 0, 0, bytes(7))
            sys.exit("a line coding that is none was taken")
        except Stall:
            pass
        times = []
        for number in range(200):
            begun = time.perf_counter()
            driver.write(pattern(number, 64))
            times.append(time.perf_counter() - begun)
            check("an echo", driver.read(64), pattern(number, 64))
        print(f"header and payload apart: {1000 * statistics.median(times):.2f} ms a URB")


def disk():
    with MSCDriver.open(VENDOR, DISK, busid="1-2", transport=server) as driver:
        blocks, size = driver.read_capacity()
        check("capacity", (blocks * size, size), (16 << 20, 512))
        check("boot sector", driver.read_blocks(0, 1, size)[510:], b"\x55\xaa")
        data = pattern(7, 64 * size)
        check("blocks written", driver.write_blocks(blocks - 64, data, size), 64)
        check("blocks read", driver.read_blocks(blocks - 64, 64, size), data)
        try:
            driver.read_blocks(blocks, 1, size)
            sys.exit("a block behind the last was read")
        except OSError:
            check("capacity after a stall", driver.read_capacity(), (blocks, size))


def isochronous_in():
    with host.open(VENDOR, MICROPHONE, busid="1-3", transport=server) as handle:
        handle.control(0x01, 0x0B, 1, 1, b"")
        samples = []
        for _ in range(10):
            for packet in handle.iso_in(0x81, 96, 8):
                check("length of a packet", len(packet), 96)
                samples += struct.unpack("<48H", packet)
        check("samples", samples, list(range(len(samples))))


def isochronous_out():
    with host.open(VENDOR, LOOPBACK, busid="1-4", transport=server) as handle:
        handle.control(0x01, 0x0B, 1, 1, b"")
        lengths = [100, 1, 1024, 3072, 0, 7]
        position = 0
        for _ in range(10):
            packets = []
            for length in lengths:
                packets.append(pattern(position, length))
                position += length
            results = [packet[2:] for packet in handle.iso_out(0x05, packets)]
            check("packets", results, [[length, 0] for length in lengths])
        counters = struct.unpack("<4Q", handle.control(0xC0, 0x01, 0, 0x05, 32))
        check("bytes, URBs and errors", counters[:3], (position, 10, 0))


list_devices()
serial()
disk()
isochronous_in()
isochronous_out()
