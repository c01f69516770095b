#!/usr/bin/env python3
"""A device with an interface that another program has: what works of it, and what is refused.

  held.py HOST BUSID HELD               HELD is the interface that is held, -1 for none; SourceSink's
                                        is 0, Loopback's is 1

Says what was refused, and exits 1 if anything else was, or anything was not.
"""

import sys

from usbip import Client

LENGTH, ROUNDS = 4096, 20
EPERM, EBUSY = -1, -16


def check(client, interface, held):
    """A transfer each way, many times: all of them work, or none."""
    bulk_in, bulk_out = client.bulk(interface)
    refusals = set()
    for _ in range(ROUNDS):
        for address, what in ((bulk_out, bytes(LENGTH)), (bulk_in, LENGTH)):
            client.submit(address, what)
            reply = client.reply()
            if held:
                refusals.add(reply.status)
                if reply.status not in (EPERM, EBUSY):
                    sys.exit(f"interface {interface}, which is held: status {reply.status}")
            elif reply.status or reply.actual_length != LENGTH:
                sys.exit(
                    f"interface {interface}, which is free: status {reply.status}, "
                    f"{reply.actual_length} bytes of {LENGTH}"
                )
    if held:
        print(f"interface {interface} refused with {', '.join(map(str, refusals))}")


def main(host, busid, held):
    with Client(host) as client:
        client.attach(busid)
        client.device_descriptor()
        check(client, 0, held == 0)
        check(client, 1, held == 1)
        check(client, 0, held == 0)
        client.device_descriptor()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
