#!/usr/bin/env python3
"""A client that keeps URBs in flight until it is killed or the server ends the connection.

  load.py HOST BUSID storage            reads on a USB stick: a megabyte each, 64 URBs
  load.py HOST BUSID INTERFACE IN OUT REPLIES [SILENT COUNT]
                                        so many bulk URBs each way on a gadget's interface, beside
                                        COUNT IN on the SILENT one; "running" is after so many replies

It says "running" when it is. When the server ends the connection, it says how: "end TIME: clean" is
one between two messages and without an error; TIME is that of the clock, in seconds. Then follows how
many URBs were not answered and when the first of them was sent, and what became of those of the silent
interface.
"""

import struct
import sys
import time

from usbip import Client, Ended, Load

LENGTH = 16384
COMMAND = struct.Struct("<4sIIBBB16s")
STATUS = struct.Struct("<4sIIB")


def run_gadget(client, silent, interface, count_in, count_out, replies, silent_interface=0, count=0):
    bulk_in, bulk_out = client.bulk(interface)
    if count:
        silent_in, _ = client.bulk(silent_interface)
        silent.update((client.submit(silent_in, LENGTH), None) for _ in range(count))
    load = Load(client, LENGTH)
    load.start(bulk_in, count_in)
    load.start(bulk_out, count_out)
    if not replies:
        # After this answer all earlier submissions have arrived.
        client.submit(0x80, 18, struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, 18))
        client.reply()
    while True:
        if load.statuses.total() == replies:
            print("running", flush=True)
        reply = load.step()
        if reply.seqnum in silent:
            silent[reply.seqnum] = reply.status


def run_storage(client):
    """Bulk-only transport: a command, its data in URBs that all are submitted at once, its status."""
    bulk_in, bulk_out = client.bulk()
    count, blocks, tag = 64, 64 * LENGTH // 512, 0
    while True:
        tag += 1
        read = struct.pack(">BBIBHB", 0x28, 0, 0, 0, blocks, 0)
        command = COMMAND.pack(b"USBC", tag, blocks * 512, 0x80, 0, len(read), read)
        client.submit(bulk_out, command)
        for _ in range(count):
            client.submit(bulk_in, LENGTH)
        client.submit(bulk_in, STATUS.size)
        for _ in range(1 + count + 1):
            reply = client.reply()
            if reply.status:
                raise ValueError(f"the stick's URB ended with {reply.status}")
            if tag == 2 and reply.address == bulk_in:
                print("running", flush=True)
        _, answered, left, status = STATUS.unpack(reply.data)
        if (answered, left, status) != (tag, 0, 0):
            raise ValueError(f"read {tag}: answer to {answered}, {left} left, status {status}")


def main(host, busid, *arguments):
    silent = {}
    with Client(host, timeout=None) as client:
        client.attach(busid)
        try:
            if arguments == ("storage",):
                run_storage(client)
            else:
                run_gadget(client, silent, *map(int, arguments))
        except Ended as ended:
            how = f"in a message, after {ended.partial} bytes" if ended.partial else "clean"
        except OSError as error:
            how = error
        statuses = sorted(map(str, silent.values()))
        first = min((sent for *_, sent in client.pending.values()), default=float("inf"))
        print(
            f"end {time.time():.3f}: {how}; {len(client.pending)} unanswered since {first:.3f}; "
            f"silent URBs: {' '.join(statuses)}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
