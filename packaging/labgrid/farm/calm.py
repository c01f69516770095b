"""What the farm's coordinator says, and the last use of every place."""

from __future__ import annotations

import queue
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb2
from labgrid.remote.generated import labgrid_coordinator_pb2_grpc as pb2_grpc
from look import look
from usbip import Device
from verdict import HERSELF, exporter_address

from labgrid_usbferry.coordinator import OWN_CONNECTION

COORDINATOR = "10.77.0.1:20408"
PORT = 3240


def wait(what: str, condition: Any, seconds: float = 120.0) -> None:
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            raise TimeoutError(f"not after {seconds} s: {what}")
        time.sleep(0.1)


def reachable(host: str, port: str) -> bool:
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def calm(total: int) -> bool:
    """Whether nobody holds anything, and every device is there."""
    try:
        places, resources = look(COORDINATOR)
    except grpc.RpcError:
        return False
    return (
        len(resources) == total
        and all(each["avail"] and not each["acquired"] for each in resources.values())
        and not any(place.acquired or place.acquired_resources for place in places.values())
    )


def sweep(exporters: int, devices: int) -> int:
    """Acquires and releases every place, and uses a device of each exporter."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    requests.put(pb2.ClientInMessage(startup=pb2.StartupDone(version="farm", name=f"{HERSELF}/m")))
    requests.put(pb2.ClientInMessage(sync=pb2.Sync(id=1)))
    with grpc.insecure_channel(COORDINATOR, options=OWN_CONNECTION) as channel:
        stub = pb2_grpc.CoordinatorStub(channel)
        stream = stub.ClientStream(iter(requests.get, None))
        next(stream)

        def use(name: str) -> None:
            stub.AcquirePlace(pb2.AcquirePlaceRequest(placename=name), timeout=60)
            number, _, device = name[1:].partition("-d")
            if device == "1":
                with Device(exporter_address(int(number)), PORT, "1-1", timeout=60) as used:
                    used.check(65536)
            stub.ReleasePlace(pb2.ReleasePlaceRequest(placename=name), timeout=60)

        names = [f"e{e}-d{d}" for e in range(1, exporters + 1) for d in range(1, devices + 1)]
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(use, names))
        requests.put(None)
        stream.cancel()
    return len(done)
