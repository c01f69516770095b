#!/usr/bin/env python3
"""Many gadgets at once, all through one server.

  many.py HOST BYTES BUSID...           reads on the bulk IN endpoint of each: one after the other
                                        until it has moved so many bytes, then all at the same time,
                                        and then more than usbfs has memory for

It prints what it did, and ends with an error when a read is not answered whole.
"""

import sys

from usbip import Client

# As usb-storage reads.
LONG = 120 << 10
DEPTH = 8
ROUNDS = 2


def whole(reply):
    if (reply.status, reply.actual_length) != (0, LONG):
        raise ValueError(f"status {reply.status}, {reply.actual_length} bytes")


def main(host, moved, *busids):
    gadgets = []
    for busid in busids:
        client = Client(host, timeout=120)
        client.attach(busid)
        bulk_in, _ = client.bulk(0)
        gadgets.append((client, bulk_in))
    for client, bulk_in in gadgets:
        for _ in range(int(moved) // LONG):
            client.submit(bulk_in, LONG)
            whole(client.reply())
    print(f"{len(gadgets)} gadgets have moved {moved} bytes each")
    for depth in (1, DEPTH):
        for client, bulk_in in gadgets:
            for _ in range(depth):
                client.submit(bulk_in, LONG)
        for number in range(depth * ROUNDS):
            for client, bulk_in in gadgets:
                whole(client.reply())
                if number < depth * (ROUNDS - 1):
                    client.submit(bulk_in, LONG)
        print(f"{len(gadgets)} at once, {depth} reads of each in flight: all whole")


if __name__ == "__main__":
    main(*sys.argv[1:])
