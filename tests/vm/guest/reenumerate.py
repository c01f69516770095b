#!/usr/bin/env python3
"""A gadget that comes back as something else, again and again.

  reenumerate.py HOST GADGET COUNT BOUND

GADGET is its configfs directory, and it is plugged in. Each time it is unplugged, given another product
id and plugged in. In every second round a client has it meanwhile, whose connection must end then. The
new identity, and no other, must be listed, and importable: BOUND seconds after the kernel shows it in
the median, which a moment's load on the machine does not change.
"""

import os
import statistics
import sys
import time

from usbip import BULK, Client, Ended, Refused, ST_DEV_BUSY

VENDOR, FIRST = 0x0525, 0xB000


def write(gadget, name, value):
    with open(os.path.join(gadget, name), "w", encoding="ascii") as file:
        file.write(value + "\n")


def present(product):
    """The sysfs name of the device with that product id, once it is configured."""
    for device in os.scandir("/sys/bus/usb/devices"):
        try:
            with open(f"{device.path}/idProduct", encoding="ascii") as file:
                if int(file.read(), 16) != product:
                    continue
        except OSError:
            continue
        if os.path.exists(f"{device.path}/{device.name}:1.0"):
            return device.name
    return None


def until(seconds, what, condition):
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            sys.exit(f"waited {seconds} s in vain for {what}")
        time.sleep(0.005)
    return result


def listed(host):
    with Client(host) as client:
        return [d.product for d in client.devlist() if d.vendor == VENDOR]


def start_client(host, busid):
    """A client with URBs pending on the device."""
    client = Client(host)
    client.attach(busid)
    bulk_in = next(e.address for e in client.endpoints() if e.kind == BULK and e.address & 0x80)
    for _ in range(8):
        client.submit(bulk_in, 16384)
    return client


def imported(host, busid, product):
    """Whether that product can be imported now; it is then asked, too, who it is."""
    with Client(host) as client:
        try:
            device = client.attach(busid)
        except Refused as refused:
            # The session with the old identity may be about to end.
            if refused.status != ST_DEV_BUSY:
                raise
            return False
        descriptor = client.device_descriptor()
    if device.product != product or int.from_bytes(descriptor[10:12], "little") != product:
        sys.exit(f"imported {device.product:04x}, {descriptor.hex()} instead of {product:04x}")
    return True


def must_end(client, seconds=10):
    client.socket.settimeout(seconds)
    try:
        while True:
            client.reply()
    except (Ended, ConnectionResetError):
        client.close()
    except TimeoutError:
        sys.exit(f"the session with the old device has not ended {seconds} s after it went")


def main(host, gadget, count, bound):
    with open(os.path.join(gadget, "UDC"), encoding="ascii") as file:
        controller = file.read().strip()
    with open(os.path.join(gadget, "idProduct"), encoding="ascii") as file:
        busid = present(int(file.read(), 16))
    times = []
    for turn in range(count):
        product = FIRST + turn
        client = start_client(host, busid) if turn % 2 else None
        write(gadget, "UDC", "")
        write(gadget, "idProduct", f"0x{product:04x}")
        write(gadget, "UDC", controller)
        busid = until(20, f"the kernel to show {product:04x}", lambda: present(product))
        shown = time.monotonic()
        until(20, f"{product:04x}, and no other, to be listed", lambda: listed(host) == [product])
        until(20, f"{product:04x} to be importable", lambda: imported(host, busid, product))
        times.append(time.monotonic() - shown)
        if client:
            must_end(client)
        until(20, "the device to be given back", lambda: listed(host) == [product])
    median = statistics.median(times)
    print(
        f"{count} identities, each listed and imported in {max(times) * 1000:.0f} ms at most after "
        f"the kernel showed it, in {median * 1000:.0f} ms in the median"
    )
    if median > bound:
        sys.exit(f"a new identity could be imported only after {median * 1000:.0f} ms in the median")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
