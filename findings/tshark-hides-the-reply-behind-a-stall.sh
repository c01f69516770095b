#!/usr/bin/env bash
# Wireshark's dissector of USB/IP over TCP hides a reply behind an error reply in the same segment.
#
# Seen with tshark 4.0.17 (Debian 12). The capture is valid: two GET_STATUS requests (CMD_SUBMIT),
# then their replies, the first a stall (status -32, no data, 48 bytes), the second with its two
# bytes. If both replies share a TCP segment, the dissector takes all the bytes behind the stall for
# a part of the stall, and shows a single reply; in separate segments both are shown. Every device
# stalls unknown requests, and every exporter that writes two replies at once can make such a
# segment, which Linux's client reads correctly. With this dissector, a search for a lost reply
# leads to the wrong place.
#
# Output at the time of writing:
#   in one segment: replies 1 | in a segment each: replies 1 2
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
libraries=(root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$folder/${libraries[0]} HOME=$folder

cat > capture.py << 'PYTHON'
import struct
import sys

REQUEST = bytes.fromhex("8000000000000200")  # GET_STATUS of the device


def basic(command, seqnum, devid, direction):
    return struct.pack(">5I", command, seqnum, devid, direction, 0)


def submit(seqnum):
    return basic(1, seqnum, 0x10002, 1) + struct.pack(">5i", 0x200, 2, 0, 0, 0) + REQUEST


def reply(seqnum, status, data):
    result = struct.pack(">5i", status, len(data), 0, 0, 0)
    return basic(3, seqnum, 0, 0) + result + bytes(8) + data


def packets(segments):
    """Raw IPv4 packets of (is from the server, payload)."""
    sent = {False: 1, True: 1}
    for from_server, payload in segments:
        ports = (3240, 40000) if from_server else (40000, 3240)
        numbers = (sent[from_server], sent[not from_server])
        sent[from_server] += len(payload)
        tcp = struct.pack(">HHIIBBHHH", *ports, *numbers, 0x50, 0x18, 65535, 0, 0)
        ends = [bytes([192, 0, 2, last]) for last in ((1, 2) if from_server else (2, 1))]
        length = 40 + len(payload)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 1, 0, 64, 6, 0, *ends)
        yield ip + tcp + payload


stalled, answered = reply(1, -32, b""), reply(2, 0, b"\1\0")
apart = [(True, stalled), (True, answered)]
replies = [(True, stalled + answered)] if sys.argv[2] == "together" else apart
with open(sys.argv[1], "wb") as out:
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))  # link type raw IP
    for second, packet in enumerate(packets([(False, submit(1) + submit(2)), *replies])):
        out.write(struct.pack("<IIII", second, 0, len(packet), len(packet)) + packet)
PYTHON

replies() { # together or apart
  python3 capture.py "$1.pcap" "$1"
  root/usr/bin/tshark -r "$1.pcap" -d tcp.port==3240,usbip -Y 'tcp.srcport == 3240' \
    -T fields -e usbip.sequence_no 2> /dev/null | tr ',\n' '  ' | sed 's/ *$//'
}
root/usr/bin/tshark -v 2> /dev/null | head -1
together=$(replies together)
apart=$(replies apart)
echo "in one segment: replies $together | in a segment each: replies $apart"
[[ $together == 1 && $apart == "1 2" ]]
