"""`serial-usbipclient` 1.1.2: a list within the quarter of a second that it waits, a serial adapter
attached, lines and bytes sent and read back with fifty reads always pending, and those given up."""

import sys

from serial_usbipclient.usbip_client import HardwareID, USBIPClient
from support.simulated import ADDRESS, ALL, PORT, SERIAL, VENDOR, check, pattern

server = (ADDRESS, PORT)
adapter = HardwareID(VENDOR, SERIAL)
client = USBIPClient(remote=server)
published = client.list_published()
ids = [(path.idVendor, path.idProduct) for path in published.paths]
check("devices", ids, [(VENDOR, product) for product in ALL])
check("interfaces", [len(path.interfaces) for path in published.paths], [2, 1, 2, 2])

# Twice, so the first client must have given the device back.
for _ in range(2):
    client = USBIPClient(remote=server)
    client.attach(devices=[adapter])
    (usb,) = client.get_connection(adapter)
    for number in range(100):
        line = f"line {number}"
        check("bytes taken", client.send(usb, line + "\r\n"), len(line) + 2)
        check("a line", client.readline(usb), line)
    for length in (1, 512, 3000):
        data = pattern(0, length)
        check("bytes taken", client.send(usb, data), length)
        check("bytes", usb.response_data(timeout=5.0, size=length), data)
    # Each pending read is cancelled, and its end awaited.
    if not usb.pending_commands:
        sys.exit("nothing is pending, so nothing is given up")
    client.shutdown()
