"""The driver: attaches a device of usbferry to the client's machine, by `usbferry attach`."""

from __future__ import annotations

import json
import os
import subprocess
from time import sleep
from typing import Any

import attr
from labgrid.driver.common import Driver
from labgrid.driver.exception import ExecutionError
from labgrid.factory import target_factory
from labgrid.step import step
from labgrid.util import Timeout
from labgrid.util.helper import processwrapper
from labgrid.util.proxy import proxymanager

from .resource import NetworkUSBFerryDevice

# A match for no device: the text is no name of a device in sysfs.
NOT_ATTACHED = "(not attached)"

# Seconds between looks for the attached device.
LOOK_INTERVAL = 0.1


@target_factory.reg_driver
@attr.s(eq=False)
class USBFerryDriver(Driver):
    """Attaches while active. Needs Linux with vhci_hcd, and root or sudo for `usbferry`.

    Args:
        provides (str): a class of labgrid's USB resources, such as USBSerialPort: the target gets
            the resource of this class for the attached device, for a driver of the class
        timeout (float): seconds until the attached device must be there
    """

    bindings = {"device": {NetworkUSBFerryDevice}}  # noqa: RUF012 (as all drivers of labgrid)

    provides: str | None = attr.ib(
        default=None, validator=attr.validators.optional(attr.validators.instance_of(str))
    )
    timeout: float = attr.ib(default=10.0, converter=float)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.tool = "usbferry"
        if self.target.env:
            self.tool = self.target.env.config.get_tool("usbferry")
        self.port: int | None = None
        self.path: str | None = None
        self.busnum: int | None = None
        self.devnum: int | None = None
        self.provided: Any = None
        if self.provides:
            self.provided = target_factory.make_resource(
                self.target, self.provides, self.name, {"match": {"sys_name": NOT_ATTACHED}}
            )

    def on_activate(self) -> None:
        host, port = proxymanager.get_host_and_port(self.device, default_port=3240)
        host = f"[{host}]" if ":" in host else host
        lines = self._usbferry("attach", "--json", f"{host}:{port}", self.device.device)
        attached = [line for line in lines if line.get("event") == "attached"]
        if not attached:
            raise ExecutionError(f"{self.tool} attach has not said what is attached")
        self.port = attached[0]["port"]
        try:
            self._await_local()
        except Exception:
            self.on_deactivate()
            raise
        self._provide(self.path)

    def on_deactivate(self) -> None:
        port, path = self.port, self.path
        self._forget()
        self._provide(None)
        found = self._local(port)
        # Another program may have detached the device, and attached another in its port.
        if found and (path is None or (found["local"] or {}).get("busid") == path):
            self._usbferry("detach", "--json", "-p", str(port))

    @Driver.check_active
    @step(result=True)
    def get_path(self) -> str:
        """The name of the attached device in sysfs, such as 9-1: /sys/bus/usb/devices/9-1"""
        assert self.path
        return self.path

    @Driver.check_active
    @step(result=True)
    def get_node(self) -> str:
        """The node of the attached device, such as /dev/bus/usb/009/002"""
        return f"/dev/bus/usb/{self.busnum:03}/{self.devnum:03}"

    def get_export_vars(self) -> dict[str, str]:
        return {"path": str(self.path), "busnum": str(self.busnum), "devnum": str(self.devnum)}

    @property
    def skip_deactivate_on_export(self) -> bool:
        return True

    def _forget(self) -> None:
        self.port = self.path = self.busnum = self.devnum = None

    def _await_local(self) -> None:
        timeout = Timeout(self.timeout)
        while True:
            found = self._local(self.port)
            if found and found["local"]:
                self.path = found["local"]["busid"]
                self.busnum = found["local"]["bus"]
                self.devnum = found["local"]["address"]
                return
            # A port that was attached a moment ago may be missing in a look at the kernel's list.
            if timeout.expired:
                what = "is lost again" if found is None else "does not appear"
                raise ExecutionError(f"{self.device.device} is attached, and {what}")
            sleep(LOOK_INTERVAL)

    def _local(self, port: int | None) -> dict[str, Any] | None:
        """What is in the port of vhci_hcd"""
        (state,) = self._usbferry("port", "--json")
        return next((each for each in state["ports"] if each["port"] == port), None)

    def _provide(self, path: str | None) -> None:
        if self.provided is None:
            return
        match = self.provided.match
        match.pop("@sys_name", None)
        match["sys_name"] = NOT_ATTACHED
        if path:
            # A tty or a disk is a descendant of the USB device.
            key = "sys_name" if match["SUBSYSTEM"] == "usb" else "@sys_name"
            del match["sys_name"]
            match[key] = path
            # The device may be there already; later devices come by udev's events.
            self.provided.manager.on_resource_added(self.provided)

    def _usbferry(self, *arguments: str) -> list[dict[str, Any]]:
        """Runs usbferry as root, and returns the lines of JSON"""
        sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
        try:
            output: bytes = processwrapper.check_output([*sudo, self.tool, *arguments])
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            told = getattr(error, "output", b"") or str(error).encode()
            text = told.decode(errors="replace").replace("\r", "").strip()
            raise ExecutionError(f"{self.tool} {arguments[0]} failed: {text}") from error
        # The log of usbferry is between the lines: labgrid joins stdout and stderr.
        return [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
