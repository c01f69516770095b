#!/usr/bin/env bash
# PyPI's serial-usbipclient means to assert DTR and RTS when attaching a serial adapter, and asserts
# neither. Its SET_CONTROL_LINE_STATE has both bits in the upper byte of wValue, a reserved byte
# (CDC, PSTN subclass 1.2, section 6.3.12: bit 0 is DTR, bit 1 RTS). Each request succeeds, but
# firmware that waits for DTR before talking, as on many boards, stays silent with this client. The
# same request is host to device in its SETUP packet and IN in the header of USB/IP. A server that
# refuses such a contradiction refuses this client, although the direction means nothing without
# data.
#
# Seen with serial-usbipclient 1.1.2 and py-datastruct 1.1.0: the script calls the client's own
# method with a connection that keeps its input.
#
# Output at the time of writing:
#   setup 21 22 00 03 00 00 00 00: DTR 0 RTS 0 | direction in the header: 1, in the SETUP packet: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  serial-usbipclient==1.1.2 py-datastruct==1.1.0 typing_extensions==4.12.2

line=$("$folder/venv/bin/python" - << 'PYTHON'
import struct
from types import SimpleNamespace

from serial_usbipclient.usbip_client import USBIPClient


class Connection(SimpleNamespace):
    """What the method needs of a connection; the answer is a RET_SUBMIT that says that all is well."""

    def sendall(self, data):
        self.sent = bytes(data)


usb = Connection(seqnum=0, devid=0x10002, control=SimpleNamespace(number=0))
client = USBIPClient(remote=("127.0.0.1", 3240))
client.readall = lambda size, usb: struct.pack(">5I5i", 3, usb.seqnum, 0, 0, 0, *[0] * 5).ljust(size, b"\0")
client.set_line_control_state(usb=usb)

direction = struct.unpack_from(">I", usb.sent, 12)[0]
setup = usb.sent[40:48]
value = struct.unpack_from("<H", setup, 2)[0]
print(
    f"setup {setup.hex(' ')}: DTR {value & 1} RTS {value >> 1 & 1} |"
    f" direction in the header: {direction}, in the SETUP packet: {setup[0] >> 7}"
)
PYTHON
)
echo "$line"
[[ $line == "setup 21 22 00 03 00 00 00 00: DTR 0 RTS 0 | direction in the header: 1, in the SETUP packet: 0" ]]
