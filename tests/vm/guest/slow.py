#!/usr/bin/env python3
"""A client that takes more than its share.

  slow.py HOST BUSID unread             submits bulk both ways on a gadget's SourceSink (interface 0)
                                        and reads no reply, until nothing more is taken
  slow.py HOST BUSID pending            has many large URBs pending on its Loopback (interface 1),
                                        which never end

Says what it did, and stays until it is killed.
"""

import signal
import struct
import sys

from usbip import Client


def unread(client):
    bulk_in, bulk_out = client.bulk(0)
    client.socket.settimeout(2)
    submitted = 0
    try:
        while submitted < 100000:
            client.submit(bulk_in, 65536)
            client.submit(bulk_out, bytes(16384))
            submitted += 2
    except TimeoutError:
        return f"stalled with {submitted} URBs submitted"
    sys.exit(f"{submitted} URBs were taken, with no reply read")


def pending(client):
    count, length = 500, 128 << 10
    bulk_in, _ = client.bulk(1)
    for _ in range(count):
        client.submit(bulk_in, length)
    # After this answer all earlier submissions have arrived.
    client.submit(0x80, 18, struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, 18))
    reply = client.reply()
    if reply.address != 0x80 or reply.status:
        sys.exit(f"a reply of endpoint {reply.address:#x}, status {reply.status}")
    return f"stalled with {count} URBs of {length >> 10} KiB pending"


def main(host, busid, how):
    with Client(host, receive_buffer=65536) as client:
        client.attach(busid)
        print({"unread": unread, "pending": pending}[how](client), flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
