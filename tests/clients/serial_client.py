"""`serial-usbipclient` 1.1.2: a list within the quarter of a second that it waits, a serial adapter
attached, lines and bytes sent and read back with fifty reads always pending, and those given up."""

import sys

from serial_usbipclient.usbip_client import HardwareID, USBIPClient

VENDOR, SERIAL = 0x1209, 4

server = (sys.argv[1], int(sys.argv[2]))
adapter = HardwareID(VENDOR, SERIAL)


def check(what, seen, wanted):
    if seen != wanted:
        sys.exit(f"{what}: {seen!r:.200} and not {wanted!r:.200}")


client = USBIPClient(remote=server)
published = client.list_published()
ids = [(path.idVendor, path.idProduct) for path in published.paths]
check("devices", ids, [(VENDOR, 4), (VENDOR, 2), (VENDOR, 3), (VENDOR, 1)])
check("interfaces", [len(path.interfaces) for path in published.paths], [2, 1, 2, 2])

# Twice, so that the first must have given the device back.
for _ in range(2):
    client = USBIPClient(remote=server)
    client.attach(devices=[adapter])
    (usb,) = client.get_connection(adapter)
    for number in range(100):
        line = f"line {number}"
        check("bytes taken", client.send(usb, line + "\r\n"), len(line) + 2)
        check("a line", client.readline(usb), line)
    for length in (1, 512, 3000):
        data = bytes(position % 251 for position in range(length))
        check("bytes taken", client.send(usb, data), length)
        check("bytes", usb.response_data(timeout=5.0, size=length), data)
    # Each read that is pending is given up, and waited for.
    if not usb.pending_commands:
        sys.exit("nothing is pending, so nothing is given up")
    client.shutdown()
