#!/usr/bin/env python3
"""Resets a device again and again, until a file appears.

  resets.py HOST BUSID FILE             says "running" after the first, the number of resets at the end
"""

import os
import sys

from usbip import Client


def main(host, busid, end):
    resets = 0
    with Client(host) as client:
        client.attach(busid)
        descriptor = client.device_descriptor()
        while not os.path.exists(end):
            # SET_FEATURE(PORT_RESET) in a hub's form: a host understands a reset of the device.
            status, _ = client.control(0x23, 3, 4, 1)
            if status:
                sys.exit(f"reset {resets + 1}: status {status}")
            if client.device_descriptor() != descriptor:
                sys.exit(f"reset {resets + 1}: another device descriptor")
            resets += 1
            if resets == 1:
                print("running", flush=True)
    print(f"{resets} resets")


if __name__ == "__main__":
    main(*sys.argv[1:])
