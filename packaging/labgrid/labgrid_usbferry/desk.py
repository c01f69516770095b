"""The socket of usbferry's operators (docs/status.md of usbferry).

Everything blocks, for `TIMEOUT` at most but for `Desk.events`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Seconds for an answer. The server itself closes after 10 s.
TIMEOUT = 5.0

# Bytes of an answer at most: 4096 devices take about 2 MiB.
ANSWER_MAX = 16 * 1024 * 1024


class DeskError(Exception):
    """The server can't be asked, or answers nonsense."""


class Refused(DeskError):
    """The server has not carried out the request; `reason` is a word of docs/status.md."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Export:
    """A device that the server knows."""

    busid: str
    name: str | None
    vid: str | None
    pid: str | None
    serial: str | None
    usable: bool
    # Whether usbferry asks a program before a client gets the device.
    authorize: bool
    client: str | None


@dataclass(frozen=True)
class State:
    """The server's devices, and a port on which the server listens."""

    port: int
    exports: tuple[Export, ...]

    def lent(self) -> set[tuple[str, str]]:
        """The devices with clients."""
        return {(each.busid, each.client) for each in self.exports if each.client}


def default_socket() -> str:
    """Where `usbferry serve` has its socket, as this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and runtime and not Path("/run/usbferry/usbferry.sock").exists():
        return f"{runtime}/usbferry/usbferry.sock"
    return "/run/usbferry/usbferry.sock"


class Desk:
    """Asks the server whose socket is at `path`; each request is a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def status(self) -> State:
        """The devices of the server now."""
        status = self._ask({"request": "status"})["status"]
        try:
            return State(
                port=int(status["server"]["listen"][0].rpartition(":")[2]),
                exports=tuple(_export(each) for each in status["exports"]),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise DeskError(f"unexpected status of the server at {self.path}: {error!r}") from error

    def disconnect(self, target: str) -> None:
        """Ends the session with a device, or the session of a client (ADDRESS:PORT)."""
        self._ask({"request": "disconnect", "target": target, "hold": False})

    def events(self) -> Iterator[str]:
        """The names of events as they happen, the first is "begin"; ends with the server."""
        with self._connect() as stream, stream.makefile("rb") as lines:
            _send(stream, {"request": "events"})
            while True:
                # An answer is due for the request; events have no hurry.
                event = _answer(lines.readline(ANSWER_MAX), self.path)["event"]["event"]
                stream.settimeout(None)
                if event == "end":
                    return
                yield event

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._connect() as stream, stream.makefile("rb") as lines:
            _send(stream, request)
            return _answer(lines.readline(ANSWER_MAX), self.path)

    def _connect(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(TIMEOUT)
        try:
            stream.connect(self.path)
        except OSError as error:
            stream.close()
            raise DeskError(f"no usbferry answers at {self.path}: {error}") from error
        return stream


def _send(stream: socket.socket, request: dict[str, Any]) -> None:
    try:
        stream.sendall(json.dumps({"version": 1, **request}).encode() + b"\n")
    except OSError as error:
        raise DeskError(f"the server does not listen: {error}") from error


def _answer(line: bytes, path: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise DeskError(f"the server at {path} has gone, or answers no JSON") from error
    if refusal := answer.get("error"):
        raise Refused(str(refusal.get("reason")), str(refusal.get("message")))
    return answer


def _export(each: dict[str, Any]) -> Export:
    return Export(
        busid=each["busid"],
        name=each["name"],
        vid=each["vid"],
        pid=each["pid"],
        serial=each["serial"],
        usable=each["present"] and each["offered"] and not each["held"],
        authorize=each["authorize"],
        client=each["client"],
    )
