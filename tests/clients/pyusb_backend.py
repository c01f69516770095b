"""`pyusb-usbip-backend` 0.0.1: its lsusbip, and devices opened and read by pyusb through it."""

import struct
import subprocess
import sys

import usb.core
import usb.util
from support.simulated import ADDRESS, ALL, LOOPBACK, PORT, SERIAL, VENDOR, check, pattern
from usbip_backend.backend import get_backend


def lsusbip():
    command = ["lsusbip", "-v", f"{ADDRESS}:{PORT}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    listed = [line.split(" ID ")[1][:9] for line in said.splitlines() if " ID " in line]
    check("lsusbip", listed, [f"{VENDOR:04x}:{product:04x}" for product in ALL])
    check("interfaces", said.count("Interface "), 2 + 1 + 2 + 2)


def open_device(product):
    device = usb.core.find(backend=backend, idVendor=VENDOR, idProduct=product)
    if device is None:
        sys.exit(f"there is no {VENDOR:04x}:{product:04x}")
    device.set_configuration()
    return device


def loopback():
    device = open_device(LOOPBACK)
    # The descriptors name no strings, but the device has strings.
    check("product", usb.util.get_string(device, 2), "Simulated loopback")
    check("source", bytes(device.read(0x81, 100_000)), pattern(0, 100_000))
    for length in (1, 512, 513, 70_000):
        data = pattern(length, length)
        check("bytes taken", device.write(0x02, data), length)
        check("what comes back", bytes(device.read(0x82, length)), data)
    check("a counter", bytes(device.read(0x83, 64)), struct.pack("<Q", 0))
    device.set_interface_altsetting(1, 1)
    check("the setting", bytes(device.ctrl_transfer(0x81, 10, 0, 1, 1)), b"\x01")
    try:
        device.ctrl_transfer(0xC0, 0xEE, 0, 0, 8)
        sys.exit("a request that nobody knows was answered")
    except usb.core.USBError:
        check("the setting after a stall", bytes(device.ctrl_transfer(0x81, 10, 0, 1, 1)), b"\x01")


def serial():
    device = open_device(SERIAL)
    coding = struct.pack("<IBBB", 38400, 0, 0, 8)
    check("a line coding", device.ctrl_transfer(0x21, 0x20, 0, 0, coding), 7)
    check("the line coding", bytes(device.ctrl_transfer(0xA1, 0x21, 0, 0, 7)), coding)
    check("bytes taken", device.write(0x01, b"hello"), 5)
    check("an echo", bytes(device.read(0x81, 64)), b"hello")


lsusbip()
backend = get_backend(ADDRESS, PORT, timeout=10.0)
loopback()
serial()
