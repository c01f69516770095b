#!/usr/bin/env bash
# PyPI's usb-remote takes a device without a serial number for the device with the wanted serial
# number. `usb-remote attach --serial 4C530001` attaches an adapter that has no serial number, if the
# wanted stick is not plugged in, and calls the choice ambiguous if it is. The filter compares serial
# numbers only where the device has one. Many devices have none: USB does not ask for serial numbers
# (USB 2.0, section 9.6.1, iSerialNumber).
#
# Seen with usb-remote 2.3.2: the script calls the function with which a server looks for the device
# of a request, with a list of devices in place of the machine's.
#
# Output at the time of writing:
#   wanted 4C530001 | adapter and another stick: adapter | adapter and the stick: ambiguous
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  usb-remote==2.3.2 pydantic==2.12.5 pyudev==0.24.4 pyusb==1.3.1 PyYAML==6.0.3 typer==0.20.0

line=$(HOME=$folder "$folder/venv/bin/python" - << 'PYTHON'
from usb_remote import usbdevice
from usb_remote.usbdevice import MultipleDevicesError, UsbDevice


def device(name, busid, vendor, product, serial):
    return UsbDevice(
        bus_id=busid, vendor_id=vendor, product_id=product, description=name, serial=serial
    )


adapter = device("adapter", "1-1", "1a86", "7523", None)
stick = device("stick", "1-2", "0781", "5567", "4C530001")
other = device("another stick", "1-3", "0781", "5567", "4C530002")


def found(*devices):
    usbdevice.get_devices = lambda: list(devices)
    try:
        return usbdevice.get_device(serial="4C530001").description
    except MultipleDevicesError:
        return "ambiguous"


print(
    f"wanted 4C530001 | adapter and another stick: {found(adapter, other)}"
    f" | adapter and the stick: {found(adapter, stick)}"
)
PYTHON
)
echo "$line"
[[ $line == "wanted 4C530001 | adapter and another stick: adapter | adapter and the stick: ambiguous" ]]
