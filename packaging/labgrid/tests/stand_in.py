#!/usr/bin/env python3
"""Stands in for `usbferry attach`, `port` and `detach` where the kernel has no vhci_hcd.

The import is real: a child keeps the connection with the server, as the kernel would. What the
kernel makes of a device, its name in sysfs, is told and not made. The child's process is in the
file `$STAND_IN_STATE`, and `$STAND_IN_FROM` is the client's address.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from usbip import Device, Refused

STATE = Path(os.environ["STAND_IN_STATE"])
LOCAL = {"busid": "9-1", "bus": 9, "address": 2, "vid": "1209", "pid": "0001"}


def attach(server: str, name: str) -> None:
    host, _, port = server.rpartition(":")
    device = Device(host, int(port), name, os.environ.get("STAND_IN_FROM"))
    # The log of the real program is on stderr, which labgrid joins with stdout.
    print("[INFO ] a line of the log", file=sys.stderr)
    child = os.fork()
    if child == 0:
        os.setsid()
        for descriptor in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        hold(device)
    STATE.write_text(json.dumps({"process": child, "host": host, "name": name}))
    print(json.dumps({"schema": 1, "event": "attached", "host": host, "name": name, "port": 3}))


def hold(device: Device) -> None:
    device.stream.settimeout(None)
    with contextlib.suppress(OSError):
        device.stream.recv(1)
    STATE.unlink(missing_ok=True)
    os._exit(0)


def port() -> None:
    ports = []
    if STATE.exists():
        state = json.loads(STATE.read_text())
        ports.append({"port": 3, "host": state["host"], "name": state["name"], "local": LOCAL})
    print(json.dumps({"schema": 1, "ports": ports}))


def detach() -> None:
    process = json.loads(STATE.read_text())["process"]
    STATE.unlink()
    os.kill(process, signal.SIGKILL)
    print(json.dumps({"schema": 1, "event": "detached", "host": None, "name": None, "port": 3}))


match sys.argv[1:]:
    case ["attach", "--json", server, name]:
        try:
            attach(server, name)
        except Refused as refused:
            sys.exit(f"usbferry: the server refuses: {refused}")
    case ["port", "--json"]:
        port()
    case ["detach", "--json", "-p", "3"]:
        detach()
    case arguments:
        sys.exit(f"stand_in: {arguments} is not what the driver should run")
