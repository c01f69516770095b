#!/usr/bin/env python3
"""A device whose lock somebody holds, and what becomes of requests for another one.

  stuck.py PORT PID BUSID       the server's port and process; BUSID is the other device

The stuck one is made of a program (odd.py) and ignores SET_INTERFACE, for which the kernel keeps the device's lock
for the five seconds that it waits; or, in the last part, for as long as the cancelled request does not come back. Meanwhile
the server has to answer requests for the other device. Says how long each took, and exits 1 if one took until the lock was
free, or if the stuck device is not as it was when all is over.
"""

import fcntl
import os
import select
import socket
import struct
import sys
import threading
import time

from odd import HIGH, Attached, Case, Guest, Raw, Wrong, as_found, settled, wait_for
from device import interface
from odd import BOTH, attribute, configuration
from usbip import Refused

USBDEVFS_SETINTERFACE = 2 << 30 | 8 << 16 | ord("U") << 8 | 4
BUSY = 3
SET_INTERFACE = b"\1\x0b"


class Stuck(Raw):
    """Ignores SET_INTERFACE, and when it `hangs` its cancellation, too. `mute` are further requests it ignores."""

    def __init__(self, case):
        super().__init__(case)
        self.hangs = False
        self.stuck = threading.Event()
        self.mute = False

    def submit(self, urb):
        if urb.address & 0x0F == 0 and (urb.setup[:2] == SET_INTERFACE or self.mute and urb.setup[:4] == b"\x80\6\0\2"):
            self.setups.append(urb.setup)
            self.stuck.set()
        else:
            super().submit(urb)

    def unlink(self, seqnum):
        return None if self.hangs else True


class Machine:
    """The server, and the two devices."""

    def __init__(self, port, pid, other):
        self.port, self.pid, self.other = port, pid, other
        two = configuration(1, interface(0, 0, 2), BOTH, interface(0, 1, 2), BOTH)
        self.case = Case("stuck", two)
        self.host = f"127.0.0.1:{port}"

    def plug(self):
        self.ours, theirs = socket.socketpair()
        self.raw = Stuck(self.case)
        threading.Thread(target=self.raw.serve, args=(self.ours,), daemon=True).start()
        self.inner = Attached(theirs, 1, HIGH)
        theirs.close()
        wait_for("its interface", lambda: settled(self.case, self.inner.busid))
        self.found = as_found(self.case, self.inner.busid)

    def listed(self, busid=None):
        with Guest(self.host) as client:
            return client.listed(busid or self.other)

    def imported(self):
        """An import of the other device; the time it took, without those that were told it is busy yet."""
        while True:
            begun = time.monotonic()
            with Guest(self.host) as client:
                try:
                    client.attach(self.other)
                    return time.monotonic() - begun
                except Refused as refused:
                    if refused.status not in (1, BUSY):
                        raise
            time.sleep(0.1)

    def turns(self):
        """What the reactor's thread has had so far: processor time in ticks, and switches."""
        with open(f"/proc/{self.pid}/task/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(") ", 1)[1].split()
        with open(f"/proc/{self.pid}/task/{self.pid}/status", encoding="ascii") as file:
            switches = sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
        return int(fields[11]) + int(fields[12]), switches

    def ask(self, what, is_stuck, rounds=3):
        """Requests for the other device; all of them while the one is stuck."""
        lists, imports = [], []
        for at in range(rounds):
            begun = time.monotonic()
            is_listed = self.listed()
            lists.append(time.monotonic() - begun)
            if not is_listed:
                # The last import's client has left, and the device is on its way back.
                wait_for(f"{what}: DEVLIST to have {self.other}", self.listed)
            if at != 1:
                imports.append(self.imported())
            if not is_stuck():
                raise Wrong(f"{what}: the lock was free before {lists} {imports} were done")
        said = ["DEVLIST " + " ".join(f"{1000 * took:.0f}" for took in lists)]
        said.append("IMPORT " + " ".join(f"{1000 * took:.0f}" for took in imports))
        print(f"{what}: {', '.join(said)} ms", flush=True)

    def back(self, what):
        try:
            wait_for("", lambda: as_found(self.case, self.inner.busid) == self.found, 30)
        except Wrong as wrong:
            raise Wrong(f"{what}: {as_found(self.case, self.inner.busid)}, not {self.found}") from wrong

    def stick(self):
        """A client that waits for the answer to SET_INTERFACE."""
        client = Guest(self.host)
        client.attach(self.inner.busid)
        self.raw.stuck.clear()
        client.submit(0, 0, struct.pack("<BBHHH", 1, 11, 1, 0, 0))
        if not self.raw.stuck.wait(10):
            raise Wrong("SET_INTERFACE did not reach the device")
        return client


def unanswered(client):
    return lambda: not select.select((client.socket,), (), (), 0)[0]


def by_a_client(machine):
    client = machine.stick()
    begun = time.monotonic()
    machine.ask("a client's SET_INTERFACE is stuck", unanswered(client))
    reply = client.reply()
    print(f"it was answered with {reply.status} after {time.monotonic() - begun:.1f} s", flush=True)
    if not reply.status:
        raise Wrong("SET_INTERFACE worked")
    client.close()
    machine.back("after a client")


def by_a_program(machine):
    numbers = [int(attribute(machine.inner.busid, name)) for name in ("busnum", "devnum")]
    path = "/dev/bus/usb/{:03}/{:03}".format(*numbers)

    def call():
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.ioctl(fd, USBDEVFS_SETINTERFACE, struct.pack("II", 0, 1))
        except OSError as error:
            print(f"the program's SET_INTERFACE: {error}", flush=True)
        os.close(fd)

    drivers = machine.found[0]
    machine.raw.stuck.clear()
    # usbfs claims a free interface for the program, so no kernel driver may have the interface.
    name = next(iter(drivers))
    with open(f"/sys/bus/usb/devices/{name}/driver/unbind", "w", encoding="ascii") as file:
        file.write(name)
    thread = threading.Thread(target=call)
    thread.start()
    if not machine.raw.stuck.wait(10):
        raise Wrong("the program's SET_INTERFACE did not reach the device")
    machine.ask("a program's SET_INTERFACE is stuck", thread.is_alive)
    thread.join()
    with open(f"/sys/bus/usb/drivers/{drivers[name]}/bind", "w", encoding="ascii") as file:
        file.write(name)
    machine.back("after a program")


def for_ever(machine):
    """The cancelled request does not come back until the device is pulled out."""
    machine.raw.hangs = True
    client = machine.stick()
    before = machine.turns()
    begun = time.monotonic()
    time.sleep(6)
    machine.ask("stuck for longer than the kernel waits", unanswered(client))
    client.close()
    machine.ask("its client has left", lambda: True)
    listed = machine.listed(machine.inner.busid)
    print(f"DEVLIST says of it: {listed}", flush=True)
    after = machine.turns()
    took = time.monotonic() - begun
    ticks, switches = (now - then for now, then in zip(after, before))
    print(f"the reactor: {ticks} ticks and {switches} switches in {took:.1f} s", flush=True)
    if ticks > 0.5 * os.sysconf("SC_CLK_TCK") * took:
        raise Wrong("the reactor spins")
    machine.ours.shutdown(socket.SHUT_RDWR)
    wait_for("the device to go", lambda: not os.path.exists(f"/sys/bus/usb/devices/{machine.inner.busid}"))
    machine.ask("after it was pulled out", lambda: True)


def while_plugged_in(machine):
    """A device that does not answer while the kernel enumerates it, which has the hub's lock for that."""
    ours, theirs = socket.socketpair()
    raw = Stuck(machine.case)
    raw.mute = True
    threading.Thread(target=raw.serve, args=(ours,), daemon=True).start()
    plugged = threading.Thread(target=lambda: Attached(theirs, 1, HIGH), daemon=True)
    plugged.start()
    if not raw.stuck.wait(20):
        raise Wrong("nobody asked the device for its configuration")
    machine.ask("a bad device is plugged in", lambda: True)
    ours.shutdown(socket.SHUT_RDWR)


def main(port, pid, other):
    machine = Machine(port, pid, other)
    machine.ask("nothing is stuck", lambda: True)
    try:
        machine.plug()
        by_a_client(machine)
        by_a_program(machine)
        for_ever(machine)
        while_plugged_in(machine)
    except (Wrong, Refused) as wrong:
        sys.exit(f"WRONG {wrong}")
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
