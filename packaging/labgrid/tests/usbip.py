"""A small client of USB/IP, for tests: imports a device and reads from it, without a kernel."""

from __future__ import annotations

import socket
import struct

VERSION = 0x0111
OP_REQ_IMPORT = 0x8003
CMD_SUBMIT = 1
RET_SUBMIT = 3
DIRECTION_IN = 1

# Bytes of a device behind OP_REP_IMPORT, and of a header of the commands.
DEVICE_LEN = 312
HEADER_LEN = 48

# The simulated loopback device: endpoint 0x81 is a source of the bytes 0 to 250, again and again.
SOURCE = 1
PERIOD = 251


class Refused(Exception):
    """The server has refused the import; `status` is its reason."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Lost(Exception):
    """The connection has ended."""


class Device:
    """A connection with an imported device."""

    def __init__(
        self, host: str, port: int, name: str, source: str | None = None, timeout: float = 20.0
    ) -> None:
        own = (source, 0) if source else None
        self.stream = socket.create_connection((host, port), timeout=timeout, source_address=own)
        self.seqnum = 0
        try:
            self.devid = self._import(name)
        except BaseException:
            self.stream.close()
            raise

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def ask(self, length: int) -> None:
        """Sends a URB to the source, and reads nothing."""
        self.seqnum += 1
        fields = (CMD_SUBMIT, self.seqnum, self.devid, DIRECTION_IN, SOURCE, 0, length, 0, 0, 0)
        self.stream.sendall(struct.pack(">10I8x", *fields))

    def bulk_in(self, length: int) -> bytes:
        """Reads from the source, in one URB."""
        self.ask(length)
        header = struct.unpack_from(">5IiI", self._read(HEADER_LEN))
        command, seqnum, _, _, _, status, actual = header
        assert (command, seqnum) == (RET_SUBMIT, self.seqnum)
        if status:
            raise Lost(f"URB ended with {status}")
        return self._read(actual)

    def check(self, total: int, urb: int = 16384) -> None:
        """Reads `total` bytes of a device that was just imported, and compares."""
        expected = bytes(position % PERIOD for position in range(PERIOD * (total // PERIOD + 1)))
        data = b"".join(self.bulk_in(urb) for _ in range(0, total, urb))
        assert data == expected[:total], "the device's bytes are wrong"

    def await_end(self, seconds: float) -> None:
        """Waits until the server has closed the connection."""
        self.stream.settimeout(seconds)
        try:
            if self.stream.recv(1):
                raise AssertionError("the server sends what nobody has asked for")
        except ConnectionResetError:
            pass

    def _import(self, name: str) -> int:
        self.stream.sendall(struct.pack(">HHI32s", VERSION, OP_REQ_IMPORT, 0, name.encode()))
        _, _, status = struct.unpack(">HHI", self._read(8))
        if status:
            raise Refused(status)
        bus, device = struct.unpack_from(">II", self._read(DEVICE_LEN), 288)
        return int(bus << 16 | device)

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                part = self.stream.recv(length - len(data))
            except ConnectionResetError as error:
                raise Lost("reset") from error
            if not part:
                raise Lost("closed")
            data += part
        return bytes(data)
