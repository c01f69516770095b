"""What the coordinator knows, by the messages that its clients send."""

from __future__ import annotations

import queue
from typing import Any

import grpc
from labgrid.remote.common import ResourceEntry
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb2
from labgrid.remote.generated import labgrid_coordinator_pb2_grpc as pb2_grpc

from labgrid_usbferry.coordinator import OWN_CONNECTION


def look(coordinator: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All places by their names, and all resources by their paths: avail, acquired and params."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    requests.put(pb2.ClientInMessage(startup=pb2.StartupDone(version="test", name="test/look")))
    for what in ("all_places", "all_resources"):
        requests.put(pb2.ClientInMessage(subscribe=pb2.Subscribe(**{what: True})))
    requests.put(pb2.ClientInMessage(sync=pb2.Sync(id=1)))
    places: dict[str, Any] = {}
    resources: dict[str, dict[str, Any]] = {}
    with grpc.insecure_channel(coordinator, options=OWN_CONNECTION) as channel:
        stream = pb2_grpc.CoordinatorStub(channel).ClientStream(
            iter(requests.get, None), timeout=20
        )
        for message in stream:
            for update in message.updates:
                if update.WhichOneof("kind") == "place":
                    places[update.place.name] = update.place
                elif update.WhichOneof("kind") == "resource":
                    path = update.resource.path
                    full = (path.exporter_name, path.group_name, update.resource.cls)
                    data = ResourceEntry.data_from_pb2(update.resource)
                    resources["/".join((*full, path.resource_name))] = data
            if message.HasField("sync"):
                break
        requests.put(None)
        stream.cancel()
    return places, resources
