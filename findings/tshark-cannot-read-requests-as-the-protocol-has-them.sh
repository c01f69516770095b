#!/usr/bin/env bash
# Wireshark's dissector of USB/IP can't read requests in the form that the protocol prescribes, and
# which Windows sends.
#
# Seen with tshark 4.0.17 (Debian 12). In a CMD_SUBMIT that isn't isochronous, number_of_packets is
# 0xffffffff (Linux's Documentation/usb/usbip_protocol.rst, USBIP_CMD_SUBMIT at 0x20). usbip-win2
# sends that, and exporters give the number back; Linux's own client sends 0. The dissector takes
# it for a count of descriptors of 16 bytes each behind the request: minus 16 bytes. Each request
# is cut at 32 of its 48 bytes, and called malformed; neither the setup packets nor the data of
# bulk transfers can be seen, and the filters for them find nothing. So a healthy session of a
# Windows client looks like a broken client.
#
# The capture is valid: a device descriptor and 4 bytes to a bulk endpoint, each message in a
# segment of its own, with 0 and with 0xffffffff. PyPI's usbip 0.7.0, the second reader, reads the
# same from both.
#
# Output at the time of writing:
#   0: usbip 8006000100001200 0a0b0c0d, tshark device 0x1209 data 0a0b0c0d malformed 0
#   0xffffffff: usbip 8006000100001200 0a0b0c0d, tshark device - data - malformed 2
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
pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps \
  --target packages usbip==0.7.0

cat > capture.py << 'PYTHON'
import socket
import struct
import sys

sys.path.insert(0, "packages")
from usbip import protocol

SETUP = bytes.fromhex("80 06 00 01 00 00 12 00")  # GET_DESCRIPTOR of the device
DEVICE = bytes.fromhex("12 01 00 02 00 00 00 40 09 12 01 00 00 01 00 00 00 01")
DATA = bytes.fromhex("0a 0b 0c 0d")
COUNT = int(sys.argv[1], 0)


def submit(seqnum, direction, endpoint, length, setup, data):
    header = struct.pack(">5I", 1, seqnum, 0x10002, direction, endpoint)
    return header + struct.pack(">IiiIi", 0, length, 0, COUNT, 0) + setup + data


def reply(seqnum, length, data):
    header = struct.pack(">5I", 3, seqnum, 0, 0, 0)
    return header + struct.pack(">iiiIi8x", 0, length, 0, COUNT, 0) + data


requests = submit(1, 1, 0, 18, SETUP, b""), submit(2, 0, 2, 4, bytes(8), DATA)
replies = reply(1, 18, DEVICE), reply(2, 4, b"")
client, server = socket.socketpair()
client.sendall(b"".join(requests))
control, bulk = protocol.read_cmd(server), protocol.read_cmd(server)
print(control.setup.hex(), bulk.buffer.hex())

sent = {False: 1, True: 1}
with open("capture.pcap", "wb") as out:
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))  # link type raw IP
    for second in range(4):
        from_server = second % 2 == 1
        payload = (replies if from_server else requests)[second // 2]
        ports, hosts = ((3240, 40000), (1, 2)) if from_server else ((40000, 3240), (2, 1))
        numbers = sent[from_server], sent[not from_server]
        sent[from_server] += len(payload)
        ends = [bytes([192, 0, 2, host]) for host in hosts]
        length = 40 + len(payload)
        packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 1, 0, 64, 6, 0, *ends)
        packet += struct.pack(">HHIIBBHHH", *ports, *numbers, 0x50, 0x18, 65535, 0, 0) + payload
        out.write(struct.pack("<IIII", second, 0, length, length) + packet)
PYTHON

libraries=(root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$folder/${libraries[0]} HOME=$folder
shown() { # field
  root/usr/bin/tshark -r capture.pcap -d tcp.port==3240,usbip -T fields -e "$1" 2> /dev/null \
    | grep . || echo -
}
read_as() { # number of packets
  local seen
  seen=$(python3 capture.py "$1")
  echo "$1: usbip $seen, tshark device $(shown usb.idVendor) data $(shown usb.capdata)" \
    "malformed $(shown _ws.malformed | grep -vcx -- - || true)"
}
root/usr/bin/tshark -v 2> /dev/null | head -1
lines=$(read_as 0; read_as 0xffffffff)
echo "$lines"
[[ $lines == "0: usbip 8006000100001200 0a0b0c0d, tshark device 0x1209 data 0a0b0c0d malformed 0
0xffffffff: usbip 8006000100001200 0a0b0c0d, tshark device - data - malformed 2" ]]
