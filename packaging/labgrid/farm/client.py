"""A client of the farm: reserves, acquires, uses and releases places until told to stop.

By labgrid's own client library. Everything that happens is a line of JSON on stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from labgrid.remote.client import ClientSession, UserError
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from usbip import Device, Lost, Refused

# Bytes read and compared in each use.
TOTAL = 65536

# Seconds for a call of the coordinator, which may wait 10 s for an exporter itself.
CALL = 30.0

# Seconds for an answer of a server.
SERVER = 20.0

# Seconds between attempts at whatever has failed.
AGAIN = 1.0


class Failed(Exception):
    """The round can't go on; nothing is wrong with the farm."""


# What trouble makes of a round. labgrid's own view of a place is old when the coordinator is lost
# (UserError).
TROUBLE = (Failed, UserError, grpc.aio.AioRpcError, TimeoutError, OSError, Lost, Refused)


def note(what: str, **facts: object) -> None:
    print(json.dumps({"time": time.time(), "what": what, **facts}), flush=True)


class Client:
    """A person at a machine of the farm."""

    def __init__(self, coordinator: str, seed: int, racks: int) -> None:
        self.coordinator = coordinator
        self.random = random.Random(seed)
        self.racks = racks
        self.stop = False
        self.session: Any = None
        self.me = ""
        self.place: str | None = None
        self.token: str | None = None

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        while not self.stop or self.place or self.token:
            try:
                await self._connect()
                await self._leave()
                if not self.stop:
                    await self._round()
            except TROUBLE as error:
                text = error.code().name if isinstance(error, grpc.aio.AioRpcError) else str(error)
                note("failed", place=self.place, why=f"{type(error).__name__} {text}")
                await asyncio.sleep(AGAIN)
        note("end")

    def _end(self) -> None:
        self.stop = True

    async def _connect(self) -> None:
        if self.session and not self.session.stopping.is_set():
            return
        if self.session:
            note("coordinator lost")
            await self.session.close()
        self.session = ClientSession(self.coordinator, asyncio.get_running_loop())
        self.me = f"{self.session.gethostname()}/{self.session.getuser()}"
        try:
            await asyncio.wait_for(self.session.start(), CALL)
        except Exception as error:
            self.session.stopping.set()
            raise Failed(f"no coordinator: {error}") from error

    async def _call(self, name: str, **fields: object) -> Any:
        request = getattr(pb2, f"{name}Request")(**fields)
        return await getattr(self.session.stub, name)(request, timeout=CALL)

    async def _leave(self) -> None:
        """Gives back what a failed round has left."""
        await asyncio.wait_for(self.session.sync_with_coordinator(), CALL)
        if self.place and self.session.places[self.place].acquired == self.me:
            note("release", place=self.place)
            await self._call("ReleasePlace", placename=self.place, fromuser=self.me)
            note("released", place=self.place)
        self.place = None
        if self.token:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._call("CancelReservation", token=self.token)
        self.token = None

    async def _round(self) -> None:
        place = await self._reserve()
        await self._acquire(place)
        resource = await self._resource(place)
        args = resource.args
        keep = self.random.random() < 0.3
        device = await asyncio.to_thread(
            Device, args["host"], args["port"], args["device"], None, SERVER
        )
        with device:
            note("attached", place=place)
            await asyncio.to_thread(device.check, TOTAL)
            note("checked", place=place)
            await self._theft(args)
            await asyncio.sleep(self.random.uniform(0, 3))
            if keep:
                # labgrid's release takes the device away.
                await self._release(place)
                await asyncio.to_thread(device.await_end, SERVER)
                note("taken back", place=place)
        if not keep:
            note("detached", place=place)
            await self._release(place)

    async def _reserve(self) -> str:
        # Some places are wanted by many, so that clients wait for each other. labgrid gives away
        # places whose exporter is not there, and the same again and again without other wishes.
        rack = str(self.random.randrange(self.racks))
        tags = {"hot": "yes"} if self.random.random() < 0.3 else {"rack": rack}
        filters = {"main": pb2.Reservation.Filter(filter=tags)}
        reply = await self._call("CreateReservation", filters=filters, prio=0.0)
        self.token = reply.reservation.token
        note("reserved")
        while not reply.reservation.allocations:
            if self.stop:
                raise Failed("stopped while waiting for a place")
            await asyncio.sleep(0.5)
            reply = await self._call("PollReservation", token=self.token)
            if reply.reservation.state > 2:
                raise Failed("the reservation has expired")
        return str(reply.reservation.allocations["main"])

    async def _acquire(self, place: str) -> None:
        # As labgrid-client does: a place without its resource is not acquired. (check_matches of
        # ClientSession fails with a KeyError while any exporter is away.)
        await self.session.sync_with_coordinator()
        if not any(self.session.places[place].hasmatch(path) for path in self._paths()):
            raise Failed("the place has no resource now")
        self.place = place
        note("acquire", place=place)
        await self._call("AcquirePlace", placename=place)
        note("acquired", place=place)

    async def _resource(self, place: str) -> Any:
        """The place's resource, as soon as the device is there."""
        await self.session.sync_with_coordinator()
        for _ in range(100):
            resources = list(self.session.get_target_resources(self.session.places[place]).values())
            if resources and resources[0].avail:
                note("has", place=place)
                return resources[0]
            await asyncio.sleep(0.1)
        raise Failed("the device is not there")

    async def _theft(self, mine: dict[str, Any]) -> None:
        """Tries to get a device that this client does not hold."""
        name = f"1-{self.random.randint(1, 5)}"
        host = self.random.choice(sorted(self._hosts()))
        if (host, name) == (mine["host"], mine["device"]):
            return
        try:
            device = await asyncio.to_thread(Device, host, mine["port"], name, None, SERVER)
        except Refused:
            note("theft refused")
        except (OSError, Lost):
            note("theft unanswered")
        else:
            device.stream.close()
            note("THEFT", host=host, device=name)

    def _paths(self) -> list[tuple[str, str, str, str]]:
        """The resources that are there, without the empty entries of resources that have left."""
        return [
            (exporter, group, entry.cls, name)
            for exporter, groups in self.session.resources.items()
            for group, entries in groups.items()
            for name, entry in entries.items()
            if "cls" in entry.data
        ]

    def _hosts(self) -> set[str]:
        groups = self.session.resources.values()
        resources = [
            entry for group in groups for each in group.values() for entry in each.values()
        ]
        return {
            entry.args["host"]
            for entry in resources
            if entry.data.get("params") and entry.args.get("host")
        }

    async def _release(self, place: str) -> None:
        note("release", place=place)
        await self._call("ReleasePlace", placename=place)
        note("released", place=place)
        self.place = None
        await self._call("CancelReservation", token=self.token)
        self.token = None


if __name__ == "__main__":
    asyncio.run(Client(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).run())
