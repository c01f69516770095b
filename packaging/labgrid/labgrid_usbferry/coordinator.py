"""Who holds which device, by the word of labgrid's coordinator.

The coordinator knows holders as HOST/USER, where HOST is the name that the client gives itself: the
name of its machine, or `LG_HOSTNAME`. usbferry knows the client's address. HOST is resolved on the
exporter's machine, and the holder has the place if the address is among the results.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import ipaddress
import queue
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

# The class as which a device appears at the coordinator.
RESOURCE_CLASS = "NetworkUSBFerryDevice"

# Seconds for the coordinator's answer. usbferry waits 20 s for the program of `on-attach`.
TIMEOUT = 15.0

DEFAULT_PORT = 20408

# The coordinator knows clients by their connections, of which gRPC makes one for a whole process.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Unreachable(Exception):
    """The coordinator does not answer."""


class Verdict(enum.Enum):
    """Whether a client may have a device."""

    PERMITTED = 0
    DENIED = 1
    # The coordinator does not answer, or does not know the device (yet).
    UNKNOWN = 2
    # The device is held, and the holder's host has no address on this machine.
    UNRESOLVED = 3


@dataclass(frozen=True)
class Place:
    """A place: its holder (HOST/USER), whom the holder allows, and resources by their paths."""

    name: str
    acquired: str
    resources: frozenset[str]
    allowed: frozenset[str] = frozenset()


@dataclass
class Snapshot:
    """All places, and the busids of devices by the paths of the resources."""

    places: list[Place] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)


def snapshot(address: str) -> Snapshot:
    """Asks the coordinator at `address` (HOST[:PORT]) for everything, as its clients do.

    Raises `Unreachable`.
    """
    import grpc

    messages, stubs = _generated()
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for request in _requests(messages):
        requests.put(request)
    with grpc.insecure_channel(_with_port(address), options=OWN_CONNECTION) as channel:
        stream = stubs.CoordinatorStub(channel).ClientStream(
            iter(requests.get, None), timeout=TIMEOUT
        )
        try:
            return _collect(stream)
        except grpc.RpcError as error:
            raise Unreachable(f"the coordinator at {address}: {error.code().name}") from error
        finally:
            requests.put(None)
            stream.cancel()


def judge(
    now: Snapshot, exporter: str, busid: str, client: str, *, trust_loopback: bool = False
) -> tuple[Verdict, str]:
    """Whether the client (an address, with or without a port) may have the device, and why.

    `trust_loopback`: a client of this machine, as over `ssh`, may have whatever anybody holds.
    """
    paths = {path for path, at in now.devices.items() if at == busid and _is_of(path, exporter)}
    if not paths:
        return Verdict.UNKNOWN, f"exporter {exporter} has no resource for {busid}"
    places = [place for place in now.places if place.acquired and place.resources & paths]
    if not places:
        return Verdict.DENIED, f"nobody holds {' or '.join(sorted(paths))}"
    address = _address(client)
    holders = {holder for place in places for holder in {place.acquired, *place.allowed}}
    told = f"{places[0].name} is held by {', '.join(sorted(holders))}"
    unresolved = []
    for host in sorted({holder.partition("/")[0] for holder in holders}):
        try:
            if address in _resolve(host):
                return Verdict.PERMITTED, told
        except OSError:
            unresolved.append(host)
    if trust_loopback and address.is_loopback:
        return Verdict.PERMITTED, f"{told}, and the client is on this machine"
    if unresolved:
        return Verdict.UNRESOLVED, f"{told}, and {', '.join(unresolved)} has no address here"
    return Verdict.DENIED, f"{told}, not by {address}"


def _requests(messages: ModuleType) -> Iterator[Any]:
    request = messages.ClientInMessage
    yield request(
        startup=messages.StartupDone(version="labgrid-usbferry", name="usbferry/exporter")
    )
    yield request(subscribe=messages.Subscribe(all_places=True))
    yield request(subscribe=messages.Subscribe(all_resources=True))
    yield request(sync=messages.Sync(id=1))


def _collect(stream: Any) -> Snapshot:
    found = Snapshot()
    for message in stream:
        for update in message.updates:
            kind = update.WhichOneof("kind")
            if kind == "place":
                found.places.append(_place(update.place))
            elif kind == "resource" and update.resource.cls == RESOURCE_CLASS:
                path = update.resource.path
                full = (path.exporter_name, path.group_name, RESOURCE_CLASS, path.resource_name)
                found.devices["/".join(full)] = update.resource.params["busid"].string_value
        if message.HasField("sync"):
            return found
    raise Unreachable("the coordinator has closed the connection")


def _place(place: Any) -> Place:
    return Place(
        name=place.name,
        acquired=place.acquired,
        resources=frozenset(place.acquired_resources),
        allowed=frozenset(place.allowed),
    )


def _is_of(path: str, exporter: str) -> bool:
    return path.split("/")[0] == exporter


def _with_port(address: str) -> str:
    return address if address.rpartition(":")[2].isdigit() else f"{address}:{DEFAULT_PORT}"


def _address(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT."""
    if client.startswith("["):
        client = client[1:].partition("]")[0]
    elif client.count(":") == 1:
        client = client.partition(":")[0]
    return _plain(client)


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without a scope, and as IPv4 if IPv6 only wraps IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _resolve(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {_plain(str(sockaddr[0])) for *_, sockaddr in found}


def _generated() -> tuple[ModuleType, ModuleType]:
    """labgrid's messages and stubs.

    Where labgrid is not imported, as in a hook, only its folder of generated modules is: all of
    labgrid takes three times as long as gRPC alone.
    """
    parent = "labgrid.remote.generated"
    if "labgrid" not in sys.modules:
        spec = importlib.util.find_spec("labgrid")
        if spec is None or not spec.submodule_search_locations:
            raise Unreachable("labgrid is not installed")
        parent = "labgrid_usbferry.generated"
        package = ModuleType(parent)
        package.__path__ = [str(Path(spec.submodule_search_locations[0], "remote", "generated"))]
        sys.modules[parent] = package
    name = f"{parent}.labgrid_coordinator_pb2"
    return importlib.import_module(name), importlib.import_module(f"{name}_grpc")
