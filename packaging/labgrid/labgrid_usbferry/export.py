"""The exporter's side: `USBFerryDevice` in the file of the stock `labgrid-exporter`."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

import attr
from labgrid.remote.exporter import InvalidResourceRequestError, ResourceExport, exports

from .coordinator import RESOURCE_CLASS
from .desk import DeskError, Export, Refused
from .resource import USBFerryDevice, USBFerryManager
from .warden import Exporter, Warden

# Seconds for which a release waits until the client's session has ended. labgrid-exporter does
# nothing else meanwhile; labgrid itself waits 2 s for the end of ser2net.
LEAVING_WAIT = 2.0

_wardens: dict[str, Warden] = {}


def _warden_of(local: USBFerryDevice) -> Warden:
    """The warden of the device's server, one for all devices there."""
    watcher = local.watcher
    if local.socket not in _wardens:

        def lent() -> list[Export] | None:
            state = watcher.state
            if state is None:
                return None
            ours = USBFerryManager.get().resources_of(local.socket)
            return [
                each
                for each in state.exports
                if each.client and any(resource.matches(each) for resource in ours)
            ]

        warden = Warden(watcher.desk, Exporter.by_command_line(), lent)
        watcher.listeners.append(warden.look)
        _wardens[local.socket] = warden
    return _wardens[local.socket]


@attr.s(eq=False)
class USBFerryExport(ResourceExport):
    """ResourceExport for a device of usbferry: there while the device is, given back at release"""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.data["cls"] = RESOURCE_CLASS
        local: Any = USBFerryDevice
        self.local: USBFerryDevice = local(target=None, name=None, **self.local_params)
        self.warden = _warden_of(self.local)
        # Before that look the device may be with a client of a place released meanwhile, so nobody
        # else gets the resource.
        self.local.hidden = True
        self._first_look = self.warden.look()
        # The client that had the device when its place was released.
        self._leaving: str | None = None

    def acquire(self, *args: Any, **kwargs: Any) -> None:
        if self.local.hidden:
            raise InvalidResourceRequestError("usbferry's sessions are not looked at yet")
        if self._leaving and self._leaving == self._client(self.local.busid):
            raise InvalidResourceRequestError(f"{self._leaving} still has the device")
        super().acquire(*args, **kwargs)

    def _get_params(self) -> dict[str, Any]:
        """Helper function to return parameters"""
        return {
            "host": self.host,
            "port": self.local.server_port,
            "device": self.local.device,
            "busid": self.local.busid,
            "vendor_id": self.local.vendor_id,
            "model_id": self.local.model_id,
        }

    def _get_start_params(self) -> dict[str, Any]:
        return {"busid": self.local.busid}

    def poll(self) -> bool:
        if self.local.hidden and self.warden.done >= self._first_look:
            self.local.hidden = False
        changed: bool = super().poll()
        if changed:
            # The device may have a client already, as after a restart of the exporter.
            self.warden.look()
        return changed

    def _start(self, start_params: dict[str, Any]) -> None:
        """The place is acquired: whoever has the device now must be the holder"""
        self.warden.look()

    def _stop(self, start_params: dict[str, Any]) -> None:
        """The place is released, or the device has gone: nobody keeps the device"""
        busid = start_params["busid"]
        self._leaving = self._client(busid)
        try:
            self.local.watcher.desk.disconnect(busid)
            self.logger.info("%s is taken back from %s", busid, self._leaving)
        except Refused as refused:
            if refused.reason not in ("free", "unknown"):
                self.logger.warning("%s: %s", busid, refused)
        except (DeskError, OSError) as error:
            # No exception: labgrid would call the resource broken until its exporter's restart.
            self.logger.warning("%s", error)
        # A client that still listens is gone in a moment; a dead client after the peer timeout.
        end = monotonic() + LEAVING_WAIT
        while self._leaving and self._leaving == self._client(busid) and monotonic() < end:
            sleep(0.01)
        # A server that has not answered is asked again, and a client on its way in is met.
        self.warden.look()

    def _client(self, busid: str | None) -> str | None:
        """The client with the device now"""
        state = self.local.watcher.state
        exports = state.exports if state else ()
        return next((each.client for each in exports if each.busid == busid), None)


exports["USBFerryDevice"] = USBFerryExport
