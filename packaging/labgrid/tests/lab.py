"""A lab on this machine: usbferry with simulated devices, and labgrid's stock programs."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb2
from labgrid.remote.generated import labgrid_coordinator_pb2_grpc as pb2_grpc
from look import look
from usbip import Device

from labgrid_usbferry.coordinator import OWN_CONNECTION

# The exporter's name, which is not the name of this machine.
EXPORTER = "desk"

# Seconds for whatever a test waits for. The machine may be busy; nothing here needs a second.
PATIENCE = 120.0

PROGRAMS = Path(sys.executable).parent


def usbferry() -> str:
    """The program under test."""
    program = Path(os.environ.get("USBFERRY", "target/release/usbferry")).resolve()
    if not program.exists():
        raise FileNotFoundError(f"{program}: build usbferry, or set USBFERRY to the program")
    return str(program)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        port: int = stream.getsockname()[1]
        return port


def wait(what: str, condition: Callable[[], object]) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not after {PATIENCE} s: {what}")
        time.sleep(0.05)


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class Person:
    """A client of the coordinator, as labgrid-client is, without the second that it takes to start.

    A place outlives its holder's connection, so each action has a connection of its own.
    """

    def __init__(self, coordinator: str, name: str) -> None:
        self.coordinator = coordinator
        self.name = name

    def make_place(self, name: str, match: str) -> None:
        self._do("AddPlace", pb2.AddPlaceRequest(name=name))
        self._do("AddPlaceMatch", pb2.AddPlaceMatchRequest(placename=name, pattern=match))

    def acquire(self, place: str) -> None:
        self._do("AcquirePlace", pb2.AcquirePlaceRequest(placename=place))

    def release(self, place: str) -> None:
        self._do("ReleasePlace", pb2.ReleasePlaceRequest(placename=place))

    def allow(self, place: str, other: str) -> None:
        self._do("AllowPlace", pb2.AllowPlaceRequest(placename=place, user=other))

    def _do(self, action: str, request: object) -> None:
        requests: queue.SimpleQueue[object] = queue.SimpleQueue()
        requests.put(pb2.ClientInMessage(startup=pb2.StartupDone(version="test", name=self.name)))
        requests.put(pb2.ClientInMessage(sync=pb2.Sync(id=1)))
        with grpc.insecure_channel(self.coordinator, options=OWN_CONNECTION) as channel:
            stub = pb2_grpc.CoordinatorStub(channel)
            stream = stub.ClientStream(iter(requests.get, None))
            next(stream)
            getattr(stub, action)(request, timeout=PATIENCE)
            requests.put(None)
            stream.cancel()


class Lab:
    """The programs of a lab; their files and logs are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.coordinator = f"127.0.0.1:{free_port()}"
        self.socket = str(folder / "usbferry.sock")
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    # The programs

    def start(self, name: str, *command: str, **environment: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"LG_COORDINATOR": self.coordinator} | environment,
            )

    def stop(self, name: str) -> int:
        process = self.running.pop(name)
        process.terminate()
        try:
            return process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def stop_all(self) -> None:
        for name in reversed(list(self.running)):
            self.stop(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def start_coordinator(self) -> None:
        self.start(
            "coordinator", str(PROGRAMS / "labgrid-coordinator"), "--listen", self.coordinator
        )
        host, _, port = self.coordinator.partition(":")
        wait("the coordinator listens", lambda: answers(host, int(port)))

    def start_server(self, devices: str = "loopback", rules: str = "") -> None:
        config = self.folder / "usbferry.toml"
        config.write_text(rules)
        self.start(
            "usbferry",
            *(usbferry(), "serve", f"--simulate={devices}", "--config", str(config)),
            *("--listen", f"127.0.0.1:{self.port}", "--socket", self.socket),
        )

    def start_exporter(self, resources: str) -> None:
        config = self.folder / "exporter.yaml"
        config.write_text(resources.replace("SOCKET", self.socket))
        self.start(
            "exporter",
            *(str(PROGRAMS / "labgrid-exporter"), "--coordinator", self.coordinator),
            *("--name", EXPORTER, "--hostname", "127.0.0.1", str(config)),
        )

    def labgrid_client(self, *arguments: str, host: str = "127.0.0.2", check: bool = True) -> str:
        """Runs labgrid-client as a person at the machine `host`."""
        done = subprocess.run(
            [str(PROGRAMS / "labgrid-client"), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=os.environ
            | {"LG_COORDINATOR": self.coordinator, "LG_HOSTNAME": host, "LG_USERNAME": "ann"},
        )
        if check and done.returncode:
            raise AssertionError(f"labgrid-client {arguments}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def usbferry(self, *arguments: str) -> str:
        """Runs a command of usbferry's operators."""
        wait("the server listens", lambda: answers("127.0.0.1", self.port))
        command = [usbferry(), *arguments, "--socket", self.socket]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    # What tests look at

    def authorize(self, *more: str) -> str:
        """Rules with the package's hook."""
        program = PROGRAMS / "usbferry-labgrid-authorize"
        arguments = ["--coordinator", self.coordinator, "--exporter", EXPORTER, *more]
        hook = ", ".join(f'"{each}"' for each in [program, *arguments])
        return f"[[rule]]\nauthorize = true\non-attach = [{hook}]\n"

    def known(self) -> dict[str, str | None]:
        """The busids by the paths of the resources, None for a device that is not there."""
        try:
            _, resources = look(self.coordinator)
        except grpc.RpcError:
            return {}
        return {
            path: each["params"]["busid"] if each["avail"] else None
            for path, each in resources.items()
        }

    def devices(self) -> dict[str, str]:
        """The busids of the devices that are there, by the paths of their resources."""
        return {path: busid for path, busid in self.known().items() if busid}

    def person(self, host: str = "127.0.0.2") -> Person:
        """A person at the machine `host`, by the messages that labgrid-client sends."""
        return Person(self.coordinator, f"{host}/ann")

    def attach(self, name: str, source: str = "127.0.0.2") -> Device:
        return Device("127.0.0.1", self.port, name, source)
