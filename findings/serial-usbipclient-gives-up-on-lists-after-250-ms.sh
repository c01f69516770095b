#!/usr/bin/env bash
# PyPI's serial-usbipclient has a time limit of 10 s for handshakes ("list/attach can run +5 secs"),
# and keeps it for imports only: the list of exports gets the limit of a URB's data, 250 ms. A
# server over a line with that round trip, or one that has to ask its devices first, can be imported
# from and not listed.
#
# Seen with serial-usbipclient 1.1.2 and py-datastruct 1.1.0. A server answers with a valid, empty
# list at once, then after 600 ms; an import, refused for want of the device, takes 600 ms as well.
#
# Output at the time of writing:
#   limit 10.0 s | list at once: answered | list after 0.6 s: timeout | import after 0.6 s: answered
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  serial-usbipclient==1.1.2 py-datastruct==1.1.0 typing_extensions==4.12.2

line=$("$folder/venv/bin/python" - << 'PYTHON'
import socket
import threading
import time

from serial_usbipclient.usbip_client import (
    USBAttachError,
    USBIPClient,
    USBIPResponseTimeoutError,
)

LIST = bytes.fromhex("0111 0005 00000000 00000000")
NO_DEVICE = bytes.fromhex("0111 0003 00000004")


def client_of(answer, request_len, delay):
    """A connected client of a server with one answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        stream, _ = listener.accept()
        with stream:
            stream.recv(request_len, socket.MSG_WAITALL)
            time.sleep(delay)
            try:
                stream.sendall(answer)
            except OSError:
                pass  # The client has left.

    threading.Thread(target=serve, daemon=True).start()
    client = USBIPClient(remote=listener.getsockname())
    client.connect_server()
    return client


def listed(delay):
    try:
        client_of(LIST, 8, delay).list_published()
        return "answered"
    except USBIPResponseTimeoutError:
        return "timeout"


def imported(delay):
    try:
        client_of(NO_DEVICE, 40, delay).import_device(b"1-1".ljust(32, b"\0"))
    except USBAttachError:
        return "answered"
    except USBIPResponseTimeoutError:
        return "timeout"


print(
    f"limit {USBIPClient.USBIP_TIMEOUT} s | list at once: {listed(0)} |"
    f" list after 0.6 s: {listed(0.6)} | import after 0.6 s: {imported(0.6)}"
)
PYTHON
)
echo "$line"
[[ $line == "limit 10.0 s | list at once: answered | list after 0.6 s: timeout | import after 0.6 s: answered" ]]
