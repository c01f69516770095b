"""Ends sessions of clients that do not hold the place of their device.

usbferry's hook (`authorize`) decides before a client gets a device. The warden looks after that: a
place may be released between the hook's answer and the attachment, while labgrid-exporter is not
running, or by a restart of the coordinator, which forgets all holders.

A client that has a device keeps the device until the coordinator says otherwise: without an answer
the warden ends nothing and asks again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import gethostname

from .coordinator import Snapshot, Unreachable, Verdict, judge, snapshot
from .desk import Desk, DeskError, Export

# Seconds before the coordinator is asked again, after no answer or before it knows the resource.
RETRY = 3.0


@dataclass(frozen=True)
class Exporter:
    """What labgrid-exporter does not tell its resources: its name and its coordinator."""

    name: str
    coordinator: str

    @classmethod
    def by_command_line(cls, arguments: Sequence[str] | None = None) -> Exporter:
        """Reads the options of labgrid-exporter that matter here, with its defaults."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument(
            "-c", "--coordinator", default=os.environ.get("LG_COORDINATOR", "127.0.0.1:20408")
        )
        parser.add_argument("-n", "--name", default=None)
        known, _ = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
        return cls(name=known.name or gethostname(), coordinator=known.coordinator)


class Warden:
    """Looks at the sessions of a server, on a thread of its own, whenever told to.

    `done` is the number of the latest look that has ended with a verdict on every client.
    """

    def __init__(
        self, desk: Desk, exporter: Exporter, lent: Callable[[], list[Export] | None]
    ) -> None:
        """`lent` tells labgrid's devices that have clients now, or None without a server."""
        self.done = 0
        self._desk = desk
        self._exporter = exporter
        self._lent = lent
        self._asked = 0
        self._wake = threading.Condition()
        self._logger = logging.getLogger(f"warden({desk.path})")
        threading.Thread(target=self._run, name=f"warden {desk.path}", daemon=True).start()

    def look(self) -> int:
        """A client may have a device that it does not hold; returns the number of the look.

        Returns at once; any thread.
        """
        with self._wake:
            self._asked += 1
            self._wake.notify()
            return self._asked

    def _run(self) -> None:
        number = 0
        while True:
            with self._wake:
                # Without a verdict the same look is tried again, or a newer look at once.
                retry = RETRY if self.done < number else None
                self._wake.wait_for(lambda seen=number: self._asked > seen, retry)  # type: ignore[misc]
                number = self._asked
            if self._settle():
                self.done = number

    def _settle(self) -> bool:
        """Ends sessions; returns whether there is a verdict on every client of now."""
        lent = self._lent()
        if not lent:
            return lent is not None
        try:
            now = snapshot(self._exporter.coordinator)
        except Unreachable as error:
            self._logger.warning("%s", error)
            return False
        verdicts = [self._judge(now, export) for export in lent]
        return Verdict.UNKNOWN not in verdicts

    def _judge(self, now: Snapshot, export: Export) -> Verdict:
        client = export.client or ""
        verdict, why = judge(now, self._exporter.name, export.busid, client, trust_loopback=True)
        if verdict is Verdict.DENIED:
            try:
                # By the client's address: the device may have the next client already.
                self._desk.disconnect(client)
                self._logger.warning("%s of %s is disconnected: %s", export.busid, client, why)
            except DeskError as error:
                # Most often the client has left by itself meanwhile.
                self._logger.info("%s", error)
        return verdict
