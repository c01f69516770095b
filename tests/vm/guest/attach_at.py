"""Attaches a device to a given port of vhci: attach_at.py HOST PORT BUSID RHPORT.

The stock tool always takes the first free port, hence always the first controller, until that is
full. The kernel takes a lock of the controller while it sets a configuration or an interface, so a
device that is exported again needs a controller other than that of the device it is made of.
"""

import socket
import struct
import sys

host, port, busid, rhport = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
server = socket.create_connection((host, port))
server.sendall(struct.pack(">HHI", 0x0111, 0x8003, 0) + busid.encode().ljust(32, b"\0"))
status = struct.unpack(">HHI", server.recv(8, socket.MSG_WAITALL))[2]
if status:
    sys.exit(f"the server refuses {busid} with status {status}")
device = server.recv(312, socket.MSG_WAITALL)
busnum, devnum, speed = struct.unpack(">III", device[0x120:0x12C])
with open("/sys/devices/platform/vhci_hcd.0/attach", "w") as attach:
    attach.write(f"{rhport} {server.fileno()} {busnum << 16 | devnum} {speed}")
