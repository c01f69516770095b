"""A network of namespaces, whose wires can be cut and delayed without netem.

Each node is a network namespace with a TUN device, whose other end is here: a process that takes
each packet and gives it to the node with the packet's destination, at once, later, or never. A
kernel without netem, as of a small virtual machine, has TUN devices.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
MTU = 9000

# Packets taken of a node in a turn, so that nobody waits long for a node that sends a lot.
TURN = 64


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def make_node(name: str, address: str) -> int:
    """Makes a namespace with one address, and returns the descriptor of its wire."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(descriptor, TUNSETIFF, request)
    run("ip", "netns", "add", name)
    run("ip", "link", "set", name, "netns", name)
    inside = ("ip", "-n", name)
    run(*inside, "addr", "add", f"{address}/16", "dev", name)
    run(*inside, "link", "set", name, "mtu", str(MTU), "up")
    run(*inside, "link", "set", "lo", "up")
    return descriptor


class Wires:
    """Carries packets between nodes; `states` has each node's delay in seconds, or None if cut."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self.states: dict[str, float | None] = dict.fromkeys(nodes, 0.0)
        self.carried = self.dropped = 0
        self._names = {socket.inet_aton(address): name for name, address in nodes.items()}
        self._ends = {name: make_node(name, address) for name, address in nodes.items()}
        self._late: list[tuple[float, int, int, bytes]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        for name, descriptor in self._ends.items():
            self._selector.register(descriptor, selectors.EVENT_READ, name)

    def serve(self, orders: int) -> None:
        """Carries until `orders` ends: lines of JSON, a node and its new state."""
        self._selector.register(orders, selectors.EVENT_READ, None)
        rest = b""
        while True:
            for key, _ in self._selector.select(self._timeout()):
                if key.data is not None:
                    self._carry(key.data, key.fd)
                    continue
                data = os.read(orders, 65536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                self.states.update(json.loads(line) for line in lines)
            self._deliver_late()

    def _timeout(self) -> float | None:
        return max(0.0, self._late[0][0] - time.monotonic()) if self._late else None

    def _carry(self, sender: str, descriptor: int) -> None:
        for _ in range(TURN):
            try:
                packet = os.read(descriptor, MTU + 100)
            except BlockingIOError:
                return
            receiver = self._names.get(packet[16:20]) if packet[0] >> 4 == 4 else None
            if receiver is None:
                continue
            delays = (self.states[sender], self.states[receiver])
            if None in delays:
                self.dropped += 1
                continue
            delay = sum(each for each in delays if each)
            if delay:
                due = time.monotonic() + delay
                heapq.heappush(self._late, (due, next(self._order), self._ends[receiver], packet))
            else:
                self._deliver(self._ends[receiver], packet)

    def _deliver_late(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            *_, descriptor, packet = heapq.heappop(self._late)
            self._deliver(descriptor, packet)

    def _deliver(self, descriptor: int, packet: bytes) -> None:
        try:
            os.write(descriptor, packet)
            self.carried += 1
        except OSError:
            self.dropped += 1


if __name__ == "__main__":
    wires = Wires(json.loads(sys.argv[1]))
    print("ready", flush=True)
    wires.serve(0)
    print(json.dumps({"carried": wires.carried, "dropped": wires.dropped}), flush=True)
