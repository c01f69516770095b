#!/usr/bin/env bash
# String descriptors by PyPI's usb-protocol are cut short by two bytes for each character outside of
# Unicode's first plane, such as an emoji or a rare ideograph in a product's name, without an error.
# bLength counts bytes, and such a character has four in UTF-16 (USB 2.0, section 9.6.7); the
# package takes two for each of Python's characters, and then writes them all. Whoever goes by
# bLength, as hosts do, loses the end of the name, or stops within the last character. Characters of
# the first plane, also those of Chinese and Japanese that are in use, come out right.
#
# Seen with usb-protocol 0.9.2 and construct 2.10.70: 0x1F680 is a rocket. What a host makes of the
# descriptor is PyUSB 1.3.1's own rule (usb.util.get_string), from a device that answers as asked.
#
# Output at the time of writing:
#   10 bytes, bLength 8 | built "a\U0001f680b", the host has "a\U0001f680"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  usb-protocol==0.9.2 construct==2.10.70 pyusb==1.3.1

line=$("$folder/venv/bin/python" - << 'PYTHON'
import array

import usb.util
from usb_protocol.types.descriptors.standard import StringDescriptor

NAME = "a\U0001f680b"


class Device:
    """Answers GET_DESCRIPTOR as a device with the descriptor does: with as much as there is."""

    langids = (0x0409,)

    def ctrl_transfer(self, data_or_wLength, **_request):
        return array.array("B", DESCRIPTOR[:data_or_wLength])


DESCRIPTOR = StringDescriptor.build({"bString": NAME})
host = usb.util.get_string(Device(), 1)
print(
    f"{len(DESCRIPTOR)} bytes, bLength {DESCRIPTOR[0]} | "
    f'built "{ascii(NAME)[1:-1]}", the host has "{ascii(host)[1:-1]}"'
)
PYTHON
)
echo "$line"
[[ $line == '10 bytes, bLength 8 | built "a\U0001f680b", the host has "a\U0001f680"' ]]
