"""What the farm's coordinator says, and the last use of every place."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from labgrid.remote.common import ResourceEntry
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb2
from labgrid.remote.generated import labgrid_coordinator_pb2_grpc as pb2_grpc
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


class View(threading.Thread):
    """What the coordinator says, kept up to date by one connection: a new look at 200 places each
    second would be most of the coordinator's work.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.places: dict[str, Any] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.synced = 0.0

    def is_fresh(self) -> bool:
        """Whether the coordinator has confirmed the view just now."""
        return time.time() < self.synced + 5.0

    def run(self) -> None:
        while True:
            with contextlib.suppress(grpc.RpcError):
                self._follow()
            self.synced = 0.0
            time.sleep(1.0)

    def _follow(self) -> None:
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        hello = pb2.StartupDone(version="farm", name=f"{HERSELF}/view")
        requests.put(pb2.ClientInMessage(startup=hello))
        for what in ("all_places", "all_resources"):
            requests.put(pb2.ClientInMessage(subscribe=pb2.Subscribe(**{what: True})))
        requests.put(pb2.ClientInMessage(sync=pb2.Sync(id=1)))
        self.places, self.resources = {}, {}
        with grpc.insecure_channel(COORDINATOR, options=OWN_CONNECTION) as channel:
            for message in pb2_grpc.CoordinatorStub(channel).ClientStream(iter(requests.get, None)):
                for update in message.updates:
                    self._take(update)
                if message.HasField("sync"):
                    self.synced = time.time()
                    time.sleep(0.5)
                    requests.put(pb2.ClientInMessage(sync=pb2.Sync(id=1)))

    def _take(self, update: Any) -> None:
        kind = update.WhichOneof("kind")
        if kind == "place":
            self.places[update.place.name] = update.place
        elif kind == "del_place":
            self.places.pop(update.del_place, None)
        elif kind == "resource":
            data = ResourceEntry.data_from_pb2(update.resource)
            self.resources[_path(update.resource.path)] = data
        elif kind == "del_resource":
            self.resources.pop(_path(update.del_resource), None)


def _path(path: Any) -> str:
    return f"{path.exporter_name}/{path.group_name}/{path.resource_name}"


def calm(view: View, total: int) -> bool:
    """Whether nobody holds anything, and every device is there."""
    places, resources = dict(view.places), dict(view.resources)
    return (
        view.is_fresh()
        and len(resources) == total
        and all(each["avail"] and not each["acquired"] for each in resources.values())
        and not any(place.acquired or place.acquired_resources for place in places.values())
    )


def restless(view: View) -> list[str]:
    """The places that somebody holds, and the devices that are away."""
    held = [f"{name} of {each.acquired}" for name, each in view.places.items() if each.acquired]
    return held + [path for path, each in view.resources.items() if not each["avail"]]


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
