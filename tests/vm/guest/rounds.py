#!/usr/bin/env python3
"""Imports, loads and leaves, again and again, each time another way.

  rounds.py HOST COUNT BUSID...         takes the devices in turn; SourceSink's gadget for each first
                                        interface, other devices get control transfers only
"""

import struct
import sys
import time

from usbip import BULK, Client, Ended, Load, Refused, ST_DEV_BUSY, SUBMIT

LENGTH = 16384


def load(client, turn):
    """Some URBs each way, and a few replies taken; a number of them stay in flight."""
    client.device_descriptor()
    bulk_in, bulk_out = gadget_endpoints(client)
    if bulk_in is None:
        client.submit(0x80, 18, struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, 18))
        return
    load = Load(client, LENGTH)
    load.start(bulk_in, 1 + turn % 16)
    load.start(bulk_out, 1 + turn % 7)
    for _ in range(turn % 40):
        load.step()


def gadget_endpoints(client):
    bulk = [e.address for e in client.endpoints() if e.kind == BULK]
    if client.device.vendor != 0x0525 or not bulk:
        return None, None
    return next(a for a in bulk if a & 0x80), next(a for a in bulk if not a & 0x80)


def leave_by_closing(client):
    client.close()


def leave_by_reset(client):
    client.abort()


def leave_in_a_header(client):
    client.socket.sendall(SUBMIT.pack(1, 1 << 20, client.device.devid, 0, 1, 0, 9, 0, 0, 0, b"")[:29])
    client.close()


def leave_in_a_payload(client):
    header = SUBMIT.pack(1, 1 << 20, client.device.devid, 0, 1, 0, LENGTH, 0, 0, 0, b"")
    client.socket.sendall(header + bytes(LENGTH // 2))
    client.close()


def leave_by_nonsense(client):
    """What is no PDU ends the connection from the other side."""
    client.socket.sendall(b"\xff" * SUBMIT.size)
    try:
        while True:
            client.reply()
    except (Ended, OSError):
        client.close()


def leave_with_unlinks(client):
    for seqnum in list(client.pending):
        client.unlink(seqnum)
    client.abort()


LEAVE = (
    leave_by_closing,
    leave_by_reset,
    leave_in_a_header,
    leave_in_a_payload,
    leave_by_nonsense,
    leave_with_unlinks,
)


def attach(host, busid, seconds=10):
    """Imports a device that may still be on its way back from the round before."""
    end = time.monotonic() + seconds
    while True:
        client = Client(host)
        try:
            client.attach(busid)
            return client
        except Refused as refused:
            client.close()
            if refused.status != ST_DEV_BUSY or time.monotonic() > end:
                raise
        time.sleep(0.01)


def main(host, count, *busids):
    for turn in range(int(count)):
        client = attach(host, busids[turn % len(busids)])
        load(client, turn)
        LEAVE[turn % len(LEAVE)](client)


if __name__ == "__main__":
    main(*sys.argv[1:])
