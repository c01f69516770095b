#!/usr/bin/env bash
# PyPI's usb-protocol, the descriptors of LUNA and of other tools, reads the device qualifier of no
# device: DeviceQualifierDescriptor.parse raises ConstError for each qualifier as the standard has
# it. A qualifier has ten bytes, the last of them reserved, and 10 in bLength (USB 2.0, section
# 9.6.2, table 9-9). The package has the constant 9 there, though its format goes on to the tenth
# byte, and build writes ten bytes that say to be nine. A program that looks through a device's
# descriptors with this package, one format for each type, ends at the first high-speed device that
# also works at full speed.
#
# Seen with usb-protocol 0.9.2 and construct 2.10.70, for a device of USB 2.00 with 64 bytes for
# endpoint 0 and one configuration.
#
# Output at the time of writing:
#   parse: ConstError, parsing expected 9 but parsed 10 | build: 10 bytes, bLength 9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  usb-protocol==0.9.2 construct==2.10.70

line=$("$folder/venv/bin/python" - << 'PYTHON'
from construct import ConstError
from usb_protocol.types.descriptors.standard import DeviceQualifierDescriptor

try:
    parsed = DeviceQualifierDescriptor.parse(bytes.fromhex("0a 06 00 02 00 00 00 40 01 00"))
    told = f"bLength {parsed.bLength}"
except ConstError as error:
    told = f"ConstError, {str(error).splitlines()[-1]}"
built = DeviceQualifierDescriptor.build(
    {
        "bcdUSB": 2.0,
        "bDeviceClass": 0,
        "bDeviceSubclass": 0,
        "bDeviceProtocol": 0,
        "bMaxPacketSize0": 64,
        "bNumConfigurations": 1,
    }
)
print(f"parse: {told} | build: {len(built)} bytes, bLength {built[0]}")
PYTHON
)
echo "$line"
[[ $line == "parse: ConstError, parsing expected 9 but parsed 10 | build: 10 bytes, bLength 9" ]]
