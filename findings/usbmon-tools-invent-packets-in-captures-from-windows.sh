#!/usr/bin/env bash
# usbmon-tools show packets that aren't in the capture, and tear URBs apart, if the capture is from
# Windows and a pipe is aborted in it. USBPcap notes what is no transfer, such as
# URB_FUNCTION_ABORT_PIPE, with the transfer type 0xfe (USBPCAP_TRANSFER_IRP_INFO). The tools skip
# such a packet, and count the packet before it a second time in its place: the copy becomes the
# answer to the original, and the real answer belongs to nothing. Cancelled URBs are what one looks
# at in a capture from a Windows client of USB/IP, and there the tools show a write twice that the
# client sent once.
#
# Seen with usbmon-tools 3.0.0. In the capture, a bulk OUT URB is submitted, a pipe is aborted, and
# the URB is answered. tshark 4.0.17 (Debian 12) is the second reader.
#
# Output at the time of writing:
#   tshark: 0x03 request 6f7574, 0xfe request -, 0x03 answer -
#   usbmon-tools: tag 0 S 6f7574, tag 0 S 6f7574, tag 20 C
set -euo pipefail
version=4.0.17-0+deb12u3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p archives/partial root
apt-get update -qq
apt-get install -qq -y --reinstall --download-only --no-install-recommends \
  -o APT::Sandbox::User=root -o Dir::Cache::archives="$folder/archives" \
  {tshark,wireshark-common,libwireshark{16,-data},libwiretap13,libwsutil14}=$version > /dev/null
for package in archives/*.deb; do dpkg-deb -x "$package" root; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps usbmon-tools==3.0.0 \
  click==8.1.8 construct==2.10.70 hexdump==3.3 python-pcapng==2.1.1

cat > capture.py << 'PYTHON'
import struct

BULK, IRP_INFO = 3, 0xFE
ABORT_PIPE, BULK_OR_INTERRUPT_TRANSFER = 2, 9


def packet(irp, answer, function, transfer, data=b""):
    """USBPcap's header, and data of endpoint 2 of device 5."""
    head = struct.pack("<HQIHBHHBBI", 27, irp, 0, function, answer, 1, 5, 2, transfer, len(data))
    return head + data


def block(kind, body):
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


packets = (
    packet(0x20, 0, BULK_OR_INTERRUPT_TRANSFER, BULK, b"out"),
    packet(0x30, 0, ABORT_PIPE, IRP_INFO),
    packet(0x20, 1, BULK_OR_INTERRUPT_TRANSFER, BULK),
)
with open("capture.pcapng", "wb") as out:
    out.write(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
    out.write(block(1, struct.pack("<HHI", 249, 0, 0)))  # link type USBPcap
    for milliseconds, data in enumerate(packets):
        time = 1000 * milliseconds
        out.write(block(6, struct.pack("<5I", 0, 0, time, len(data), len(data)) + data))
PYTHON
python3 capture.py

libraries=(root/usr/lib/*-linux-gnu)
tshark=$(
  LD_LIBRARY_PATH=$folder/${libraries[0]} HOME=$folder root/usr/bin/tshark -r capture.pcapng \
    -T fields -e usb.transfer_type -e usb.irp_info.direction -e usb.capdata 2> /dev/null \
    | awk -F '\t' '{ print $1, $2 == 1 ? "answer" : "request", $3 == "" ? "-" : $3 }' \
    | paste -sd , | sed 's/,/, /g'
)
tools=$(
  venv/bin/usbmon-pcapng2text --address-prefix 1.5 capture.pcapng \
    | awk '{ sub(/^0+/, "", $1); print "tag " ($1 ? $1 : 0), $3 ($8 ? " " $8 : "") }' \
    | paste -sd , | sed 's/,/, /g'
)
lines="tshark: $tshark
usbmon-tools: $tools"
echo "$lines"
[[ $lines == "tshark: 0x03 request 6f7574, 0xfe request -, 0x03 answer -
usbmon-tools: tag 0 S 6f7574, tag 0 S 6f7574, tag 20 C" ]]
