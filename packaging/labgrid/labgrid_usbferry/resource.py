"""The resources: `USBFerryDevice` where usbferry runs, `NetworkUSBFerryDevice` for clients."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import attr
from labgrid.factory import target_factory
from labgrid.resource.common import ManagedResource, NetworkResource, ResourceManager

from .desk import Desk, DeskError, Export, State, default_socket

# Seconds between attempts to reach a server that does not answer.
RETRY = 1.0

# mypy finds no type for these where a default is given.
_OPTIONAL_INT: Any = attr.validators.optional(attr.validators.instance_of(int))
_OPTIONAL_STR: Any = attr.validators.optional(attr.validators.instance_of(str))

_logger = logging.getLogger("usbferry")

# What a match may tell of a device.
MATCH_KEYS = {"busid", "name", "id", "serial"}


class Watcher:
    """Keeps the state of a usbferry server up to date, on a thread of its own.

    `state` is None while the server does not answer. `listeners` are called on the thread after
    each change of the state in which a client got a device, or the server was found.
    """

    def __init__(self, path: str) -> None:
        self.desk = Desk(path)
        self.state: State | None = None
        self.listeners: list[Callable[[], object]] = []
        self._logger = logging.getLogger(f"usbferry({path})")
        threading.Thread(target=self._run, name=f"usbferry {path}", daemon=True).start()

    def _run(self) -> None:
        told = ""
        while True:
            try:
                self._follow()
                told = "the server has ended"
                self._logger.info(told)
            except (DeskError, OSError) as error:
                if self.state is not None or told != str(error):
                    self._logger.warning("%s", error)
                told = str(error)
            self.state = None
            time.sleep(RETRY)

    def _follow(self) -> None:
        for _ in self.desk.events():
            # Events say that something changed; the status says what is now.
            self._take(self.desk.status())

    def _take(self, state: State) -> None:
        before = self.state
        self.state = state
        if before is None or state.lent() - before.lent():
            for listener in self.listeners:
                listener()


@attr.s(eq=False)
class USBFerryManager(ResourceManager):
    """Gives each device to one `USBFerryDevice` at most, the first that matches."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.watchers: dict[str, Watcher] = {}
        self._seen: dict[str, State | None] = {}

    def on_resource_added(self, resource: USBFerryDevice) -> None:
        if resource.socket not in self.watchers:
            self.watchers[resource.socket] = Watcher(resource.socket)
        self._assign(resource.socket, self.watchers[resource.socket].state)

    def poll(self) -> None:
        for path, watcher in self.watchers.items():
            state = watcher.state
            if path not in self._seen or self._seen[path] is not state:
                self._assign(path, state)

    def resources_of(self, path: str) -> list[USBFerryDevice]:
        """The resources of the server at `path`."""
        return [resource for resource in self.resources if resource.socket == path]

    def _assign(self, path: str, state: State | None) -> None:
        self._seen[path] = state
        free = {each.busid: each for each in (state.exports if state else ()) if each.usable}
        waiting = []
        for resource in self.resources_of(path):
            kept = free.get(resource.busid or "")
            if kept and resource.matches(kept):
                resource.become(free.pop(kept.busid), state)
            else:
                waiting.append(resource)
        for resource in waiting:
            found = next((each for each in free.values() if resource.matches(each)), None)
            if found:
                del free[found.busid]
            resource.become(found, state)


def _match(value: dict[str, str]) -> dict[str, str]:
    """The match as text: YAML reads `serial: 123456` as a number."""
    return {key: str(each) for key, each in value.items()}


def _known_keys(_resource: object, _attribute: Any, value: dict[str, str]) -> None:
    unknown = sorted(set(value) - MATCH_KEYS)
    if unknown:
        raise ValueError(
            f"match has {', '.join(unknown)}: known are {', '.join(sorted(MATCH_KEYS))}"
        )
    if not value:
        raise ValueError(f"match is empty: give one of {', '.join(sorted(MATCH_KEYS))}")


@target_factory.reg_resource
@attr.s(eq=False)
class USBFerryDevice(ManagedResource):
    """A device that a usbferry server on this machine exports.

    Args:
        match (dict): which device; all keys given must match, as in a rule of usbferry: name (the
            nickname by usbferry's rules), id ("VID:PID"), serial, busid
        socket (str): the socket of the server's operators (option --socket of `usbferry serve`)
        port (int): the server's port for clients, by default the first that the server has
    """

    manager_cls = USBFerryManager

    match: dict[str, str] = attr.ib(
        converter=_match, validator=[attr.validators.instance_of(dict), _known_keys], hash=False
    )
    socket: str = attr.ib(factory=default_socket, validator=attr.validators.instance_of(str))
    port: int | None = attr.ib(default=None, validator=_OPTIONAL_INT)

    def __attrs_post_init__(self) -> None:
        self.timeout = 5.0
        self.device: str | None = None
        self.vendor_id: int | None = None
        self.model_id: int | None = None
        self.server_port: int | None = self.port
        super().__attrs_post_init__()

    # labgrid reads `avail` before __attrs_post_init__.
    busid: str | None = None
    hidden = False

    # As in labgrid's USBMassStorage, the attribute of Resource is a property, and not set.
    @property
    def avail(self) -> bool:
        """Whether the device is there, and shown."""
        return self.busid is not None and not self.hidden

    @avail.setter
    def avail(self, value: bool) -> None:
        pass

    @property
    def watcher(self) -> Watcher:
        """The state of the server of this device."""
        watcher: Watcher = self.manager.watchers[self.socket]
        return watcher

    def matches(self, export: Export) -> bool:
        """Whether this is the resource of the device."""
        facts = {
            "busid": export.busid,
            "name": export.name,
            "id": f"{export.vid}:{export.pid}",
            "serial": export.serial,
        }
        wanted = dict(self.match)
        if "id" in wanted:
            wanted["id"] = wanted["id"].lower()
        return all(facts[key] == value for key, value in wanted.items())

    def become(self, export: Export | None, state: State | None) -> None:
        """Takes the facts of the device, or becomes unavailable."""
        if export and export.busid != self.busid and not export.authorize:
            _logger.warning(
                "%s: any client gets the device until labgrid-exporter looks, since the device's "
                "rule asks no program (authorize)",
                export.name or export.busid,
            )
        self.busid = export.busid if export else None
        self.device = _name_for_clients(export, state) if export and state else None
        self.vendor_id = int(export.vid, 16) if export and export.vid else None
        self.model_id = int(export.pid, 16) if export and export.pid else None
        if self.port is None and state:
            self.server_port = state.port


def _name_for_clients(export: Export, state: State) -> str:
    """The nickname outlives a replug into another port; the busid is the device's alone."""
    if export.name and [each.name for each in state.exports].count(export.name) == 1:
        return export.name
    return export.busid


@target_factory.reg_resource
@attr.s(eq=False)
class NetworkUSBFerryDevice(NetworkResource):
    """A device that can be attached by `usbferry attach HOST:PORT DEVICE`.

    Args:
        host (str): the machine with the server
        device (str): the name to ask for: nickname, busid, VID:PID, VID:PID:SERIAL or serial:SERIAL
        port (int): the server's port
        busid (str): the device's place on the server's machine; information only
        vendor_id (int): idVendor; information only
        model_id (int): idProduct; information only
    """

    device: str | None = attr.ib(validator=_OPTIONAL_STR)
    port: int | None = attr.ib(default=3240, validator=_OPTIONAL_INT)
    busid: str | None = attr.ib(default=None, validator=_OPTIONAL_STR)
    vendor_id: int | None = attr.ib(default=None, validator=_OPTIONAL_INT)
    model_id: int | None = attr.ib(default=None, validator=_OPTIONAL_INT)
