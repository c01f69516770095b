#!/usr/bin/env bash
# Wireshark's dissector of USB/IP shows isochronous packets with the bytes of other packets.
#
# Seen with tshark 4.0.17 (Debian 12). An isochronous IN reply has the packets' data without the
# gaps behind short packets (Linux's Documentation/usb/usbip_protocol.rst, USBIP_RET_SUBMIT:
# padding between packets is not transmitted), while each descriptor keeps its packet's offset in
# the client's buffer: the client puts the packets back there (usbip_pad_iso in
# drivers/usb/usbip/usbip_common.c). The dissector looks for the data at the offset itself, in data
# without gaps. Behind the first short packet, usb.iso.data is the data of later packets, or
# missing; lengths and statuses are right. Most packets of a microphone or a camera are short, so
# whoever exports sound or pictures from such a capture gets damaged data, and looks for the fault
# in the server.
#
# The capture is valid: one request for three packets of up to 96 bytes, answered with 48 bytes
# each: all 1, all 2, all 3. The client of PyPI's usbip 0.7.0 is the second reader of the same
# reply.
#
# Output at the time of writing:
#   lengths 48 48 48: usbip 01 02 03 | tshark 01 03 nothing
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

cat > reply.py << 'PYTHON'
import socket
import struct
import sys

sys.path.insert(0, "packages")
from usbip.host import Connection

REPLY = struct.pack(">10i8x", 3, 1, 0, 0, 0, 0, 144, 0, 3, 0)
REPLY += b"\1" * 48 + b"\2" * 48 + b"\3" * 48
REPLY += b"".join(struct.pack(">4I", 96 * packet, 96, 48, 0) for packet in range(3))


def packet(from_server, payload):
    """A raw IPv4 packet with the first segment of its direction."""
    ports, hosts = ((3240, 40000), (1, 2)) if from_server else ((40000, 3240), (2, 1))
    tcp = struct.pack(">HHIIBBHHH", *ports, 1, 1, 0x50, 0x18, 65535, 0, 0)
    ends = [bytes([192, 0, 2, host]) for host in hosts]
    length = 40 + len(payload)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 1, 0, 64, 6, 0, *ends) + tcp + payload


client, server = socket.socketpair()
server.sendall(REPLY)
connection = Connection(client)
buffer, packets = connection.iso_transfer(0x83, [96] * 3)
print(*(buffer[offset:][:1].hex() for offset, _, _, _ in packets))
request = server.recv(4096)
with open("capture.pcap", "wb") as out:
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))  # link type raw IP
    for second, data in enumerate((packet(False, request), packet(True, REPLY))):
        out.write(struct.pack("<IIII", second, 0, len(data), len(data)) + data)
PYTHON
usbip=$(python3 reply.py)

libraries=(root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$folder/${libraries[0]} HOME=$folder
root/usr/bin/tshark -v 2> /dev/null | head -1
shown=$(root/usr/bin/tshark -r capture.pcap -d tcp.port==3240,usbip -Y 'tcp.srcport == 3240' \
  -T fields -e usb.iso.iso_actual_len -e usb.iso.data 2> /dev/null)
IFS=$'\t,' read -r -a parts <<< "$shown"
line="lengths ${parts[*]:0:3}: usbip $usbip | tshark"
for packet in 3 4 5; do
  data=${parts[packet]:-}
  [[ -z ${data//${data:0:2}/} ]] # the bytes of a single packet
  line+=" ${data:0:2}"
  [[ $data ]] || line+=nothing
done
echo "$line"
[[ $line == "lengths 48 48 48: usbip 01 02 03 | tshark 01 03 nothing" ]]
