#!/usr/bin/env python3
"""Odd devices, one after another: what the kernel makes of each is what usbferry serves of it.

  odd.py cases PORT             all of CASES, through the server on that port
  odd.py cases PORT WORD...     those with one of these words in their names

Each device is made of a program (device.py), attached to the second controller of vhci, and exported from there by
the server, which exports devices of 1209:0005. Then, through the server:
  - DEVLIST says what sysfs says;
  - a client without a kernel imports it, sets the configuration that the host has, and uses each endpoint that the
    kernel has in the settings in force; each of them must do, and those that the case calls `gone` must not;
  - the kernel's own client attaches it, and makes the same of it as the host, interface by interface;
  - drivers and configuration are then as they were, and the device was never asked for its configuration.
One line per case; exit 1 if one failed.
"""

import glob
import os
import socket
import struct
import sys
import threading
import time

import device
from device import BULK, INTERRUPT, ISOCHRONOUS, endpoint, interface
from usbip import DEVICE_LEN, REPLY, SUBMIT, Client, Refused, device_of

VHCI = "/sys/devices/platform/vhci_hcd.0"
DEVICES = "/sys/bus/usb/devices"
IDS = 0x1209, 0x0005
LOW, FULL, HIGH, SUPER = 1, 2, 3, 5
SPEEDS = {LOW: 0x0110, FULL: 0x0200, HIGH: 0x0200, SUPER: 0x0320}
CONTROL = 0
PATIENCE = 30


class Wrong(Exception):
    """What is not as it should be."""


def expect(what, found, wanted):
    if found != wanted:
        raise Wrong(f"{what}: {found}, not {wanted}")


def wait_for(what, condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise Wrong(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)
    return found


# ---- sysfs -----------------------------------------------------------------------------------------


def attribute(*path):
    try:
        with open(os.path.join(DEVICES, *path), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def descriptors_of(busid):
    with open(f"{DEVICES}/{busid}/descriptors", "rb") as file:
        return file.read()


def interfaces_of(busid):
    return glob.glob(f"{DEVICES}/{busid}/{busid}:*")


def tree_of(busid):
    """What the kernel has made of a device: by interface number the setting in force, and its endpoints."""
    tree = {}
    for path in interfaces_of(busid):
        names = ("bAlternateSetting", "bNumEndpoints", "bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
        facts = tuple(attribute(path, name) for name in names)
        endpoints = {}
        for ep in glob.glob(f"{path}/ep_*"):
            # An attribute that disappears during the reading counts as -1.
            endpoints[int(ep[-2:], 16)] = tuple(
                int(attribute(ep, name) or "-1", 16) for name in ("bmAttributes", "wMaxPacketSize", "bInterval")
            )
        tree[int(attribute(path, "bInterfaceNumber") or "-1", 16)] = (facts, endpoints)
    return dict(sorted(tree.items()))


def drivers_of(busid):
    found = {}
    for path in interfaces_of(busid):
        try:
            found[os.path.basename(path)] = os.path.basename(os.readlink(os.path.join(path, "driver")))
        except OSError:
            found[os.path.basename(path)] = None
    return found


def vhci_devices():
    names = (name for name in os.listdir(DEVICES) if "-" in name and ":" not in name)
    return {name for name in names if "vhci_hcd" in os.path.realpath(f"{DEVICES}/{name}")}


# ---- vhci ------------------------------------------------------------------------------------------


def ports():
    """The ports of a controller: how many for USB 2, how many in all."""
    with open(f"{VHCI}/status", encoding="ascii") as file:
        hubs = [line[:2] for line in file]
    return hubs.count("hs"), hubs.count("hs") + hubs.count("ss")


class Attached:
    """A device that vhci has from the other end of a socket."""

    def __init__(self, connection, controller, speed, devid=0x10002):
        usb2, all_ = ports()
        self.port = controller * all_ + (usb2 if speed == SUPER else 0)
        before = vhci_devices()
        with open(f"{VHCI}/attach", "w", encoding="ascii") as file:
            file.write(f"{self.port} {connection.fileno()} {devid} {speed}")
        try:
            self.busid = wait_for("a device on vhci", lambda: vhci_devices() - before).pop()
        except Wrong:
            self.free()
            raise

    def free(self):
        with open(f"{VHCI}/detach", "w", encoding="ascii") as file:
            file.write(str(self.port))

    def detach(self):
        self.free()
        wait_for(f"{self.busid} to go", lambda: self.busid not in vhci_devices())


class Raw(device.Device):
    """A device of these bytes. GET_CONFIGURATION it answers with 0, whatever is set."""

    def __init__(self, case):
        self.case = case
        self.setups = []
        super().__init__()

    def describe(self):
        return self.case.configurations[0]

    def descriptor(self):
        case = self.case
        packet = {LOW: 8, SUPER: 9}.get(case.speed, 64)
        return struct.pack(
            "<BBHBBBBHHHBBBB", 18, 1, SPEEDS[case.speed], 0, 0, 0, packet, *case.ids, 0x100, 0, 0, 0, case.said
        )

    def control(self, setup, data):
        self.setups.append(setup)
        kind, request, value, _, length = struct.unpack("<BBHHH", setup)
        if (kind, request, value >> 8) == (0x80, 6, 2):
            index = value & 0xFF
            configurations = self.case.configurations
            return configurations[index][:length] if index < len(configurations) else None
        if (kind, request) == (0x80, 8):
            return b"\0"
        if (kind, request) == (0x00, 9) and self.case.stalls:
            return None
        return super().control(setup, data)

    def transfer(self, urb):
        if not urb.address & 0x80:
            return self.reply(urb, 0, b"", urb.length)
        return self.reply(urb, 0, bytes(urb.length))

    def serve(self, connection):
        try:
            device.perform(connection, self)
        except (EOFError, OSError):
            pass


# ---- The client ------------------------------------------------------------------------------------


class Guest(Client):
    """Also knows of isochronous URBs, and what DEVLIST says of interfaces."""

    def listed(self, busid):
        # On a busy machine there may be no list yet.
        if self.request(5):
            return None
        found = None
        for _ in range(struct.unpack(">I", self.receive(4))[0]):
            record = self.receive(DEVICE_LEN)
            entry = device_of(record)
            classes = [bytes(self.receive(4))[:3].hex() for _ in range(entry.interfaces)]
            if entry.busid == busid:
                found = record[0x136], record[0x135], record[0x137], classes
        return found

    def isochronous(self, address, packet):
        self.seqnum += 1
        data = b"" if address & 0x80 else bytes(2 * packet)
        table = b"".join(device.PACKET.pack(at * packet, packet, 0, 0) for at in range(2))
        header = SUBMIT.pack(
            1, self.seqnum, self.device.devid, address >> 7, address & 0x0F, 2, 2 * packet, 0, 2, 1, bytes(8)
        )
        self.socket.sendall(header + data + table)
        fields = REPLY.unpack(self.receive(REPLY.size))
        expect(f"seqnum of the reply of {address:02x}", fields[1], self.seqnum)
        self.receive((fields[6] if address & 0x80 else 0) + 16 * fields[8])
        return fields[5] or -fields[9]

    def move(self, address, kind, packet):
        """The status of a transfer."""
        if kind == ISOCHRONOUS:
            return self.isochronous(address, packet)
        length = min(packet, 64)
        self.submit(address, length if address & 0x80 else bytes(length))
        return self.reply().status


# ---- Cases -----------------------------------------------------------------------------------------


class Case:
    """A device, and what the kernel makes of it; `gone` are addresses that must not do anything."""

    def __init__(self, name, *configurations, interfaces=(0,), number=1, **more):
        self.name = name
        self.configurations = [bytes.fromhex(c) if isinstance(c, str) else c for c in configurations]
        self.interfaces, self.number = list(interfaces), number
        self.said = more.pop("said", len(configurations))
        self.speed = more.pop("speed", HIGH)
        # The server's options must export other ids than the default, too.
        self.ids = more.pop("ids", IDS)
        self.settings = more.pop("settings", ())
        self.endpoints = set(more.pop("endpoints", (0x81,)))
        self.gone = more.pop("gone", ())
        # Interfaces that no program can claim.
        self.unclaimed = more.pop("unclaimed", ())
        # A driver that loses the interface gets it back only if the interfaces are made anew: the
        # kernel first sets setting 0, which fails.
        self.renewed = more.pop("renewed", False)
        # The kernel refuses the device as a whole.
        self.absent = more.pop("absent", False)
        # The device stalls SET_CONFIGURATION; a user unconfigures the device by hand; the import is
        # refused.
        self.stalls, self.by_hand, self.refused = (more.pop(name, False) for name in ("stalls", "by_hand", "refused"))
        assert not more


def configuration(interfaces, *parts, number=1):
    body = b"".join(parts)
    return struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), interfaces, number, 0, 0x80, 50) + body


def bulk(address, packet=512):
    return endpoint(address, BULK, packet)


BOTH = bulk(0x81) + bulk(0x01)
PLAIN = configuration(1, interface(0, 0, 2), BOTH)
CUT = "09023c0001010080320904000002ff0000000705810200020007050102000200"
KINDS = {BULK: 512, INTERRUPT: 64, ISOCHRONOUS: 64}


def twice(first, second):
    name = "one address twice, types {} and {}".format(first, second)
    pair = endpoint(0x81, first, KINDS[first], 4), endpoint(0x81, second, KINDS[second], 4)
    out = bulk(0x01)
    yield Case(name, configuration(1, interface(0, 0, 3), *pair, out), endpoints=(0x81, 1))
    two = configuration(2, interface(0, 0, 2), pair[0], out, interface(1, 0, 1), pair[1])
    yield Case(name + " in two interfaces", two, interfaces=(0, 1), endpoints=(0x81, 1))


def cases():
    yield Case("GET_CONFIGURATION is answered with 0", PLAIN, endpoints=(0x81, 1))
    yield Case(
        "configuration 0",
        "09022700010000803209040000030b00000007058102400000070501024000000705820308000a",
        number=0,
        endpoints=(0x81, 1, 0x82),
    )
    yield Case("60 bytes said, 32 there", CUT, endpoints=(0x81, 1))
    yield Case("65,535 bytes said", CUT.replace("3c00", "ffff", 1), endpoints=(0x81, 1))
    yield Case("60 bytes said, 30 there", CUT[:60])
    yield Case("25 bytes said", CUT.replace("3c00", "1900", 1), gone=(1,))
    yield Case("27 bytes said", CUT.replace("3c00", "1b00", 1), gone=(1,))
    yield Case(
        "junk behind",
        "0902230001010080320904000002ff0000000705810200020007050102000200010203",
        endpoints=(0x81, 1),
    )
    for junk in ("0005", "0104", "c8058202000200", "07", "ff", "0705820200"):
        junk = bytes.fromhex(junk)
        yield Case(f"behind junk {junk.hex()}", configuration(2, interface(0, 0, 2), bulk(0x81), junk))
        behind = configuration(2, interface(0, 0, 2), BOTH, b"\0\5", interface(1, 0, 0))
    yield Case("an interface behind junk", behind, endpoints=(0x81, 1))
    yield Case(
        "an endpoint counted, not there",
        "09022200020100803209040000010e0100000705810310000809040100010e020000",
        interfaces=(0, 1),
    )
    yield Case("255 endpoints counted", configuration(1, interface(0, 0, 255), BOTH), endpoints=(0x81, 1))
    yield Case(
        "an endpoint too many",
        "0902400003010080320904000001030000000705810340000409040100010300000007058203400004"
        "0705840340000409040200010300000007058303400004",
        interfaces=(0, 1, 2),
        endpoints=(0x81, 0x82, 0x83),
        gone=(0x84,),
    )
    # The kernel ignores endpoint 85 of interface 1 in one of the cases, so interface 2's counts.
    twice_85 = interface(0, 0, 0), interface(1, 0, 1), bulk(0x85), interface(2, 0, 1), endpoint(0x85, INTERRUPT, 8, 4)
    three = {"interfaces": (0, 1, 2), "endpoints": (0x85,)}
    yield Case("an ignored endpoint", configuration(3, *twice_85), ids=(0x0926, 0x0202), **three)
    yield Case("an endpoint that is not ignored", configuration(3, *twice_85), **three)
    none = configuration(2, interface(0, 0, 0), bulk(0x81), interface(1, 0, 1), endpoint(0x81, INTERRUPT, 8, 4))
    yield Case("no endpoint counted", none, interfaces=(0, 1))
    yield Case(
        "settings apart",
        "0902440003010080320904000000010000000904010000010000000904020000010000000904010101010000000705010"
        "1c0000109040201010100000007058201c00001",
        interfaces=(0, 1, 2),
        settings=((1, 1), (2, 1)),
        endpoints=(1, 0x82),
    )
    parts = [interface(n, 0, 1) + (bulk(0x81 + n) if n < 15 else b"") for n in range(33)]
    yield Case("33 interfaces", configuration(33, *parts), interfaces=range(32), endpoints=range(0x81, 0x90))
    parts[0], parts[32] = parts[32], parts[0]
    yield Case(
        "33 interfaces, the last first",
        configuration(33, *parts),
        interfaces=range(1, 33),
        endpoints=range(0x82, 0x90),
        gone=(0x81,),
    )
    for address in (0x00, 0x80, 0x10, 0x90, 0x71):
        odd = endpoint(address, INTERRUPT, 8, 4)
        yield Case(f"address {address:02x} first", configuration(1, interface(0, 0, 3), odd, BOTH), endpoints=(0x81, 1))
    odd = endpoint(0x80, BULK, 64)
    yield Case("address 80 last", configuration(1, interface(0, 0, 3), BOTH, odd), endpoints=(0x81, 1))
    for first, second in ((BULK, INTERRUPT), (INTERRUPT, BULK), (BULK, ISOCHRONOUS), (ISOCHRONOUS, BULK)):
        yield from twice(first, second)
    control = configuration(1, interface(0, 0, 3), endpoint(2, CONTROL, 64), bulk(0x82), bulk(0x81))
    yield Case("a control endpoint with the number of another", control)
    repeated = interface(0, 0, 1), bulk(0x81), interface(0, 0, 1), bulk(0x82), interface(0, 7, 1), bulk(0x83)
    yield Case("a setting twice", configuration(1, *repeated), gone=(0x82, 0x83))
    yield Case("a setting after it", configuration(1, *repeated), settings=((0, 7),), endpoints=(0x83,))
    without = configuration(1, interface(0, 3, 1), bulk(0x81), interface(0, 1, 1), bulk(0x82))
    yield Case("no setting 0", without, renewed=True)
    yield Case("no setting 0, another set", without, settings=((0, 1),), endpoints=(0x82,), renewed=True)
    apart = interface(6, 0, 1), bulk(0x81), interface(4, 0, 0), interface(4, 1, 1), bulk(0x82), interface(63, 0, 1)
    yield Case(
        "interfaces 6, 4, 63",
        configuration(5, *apart, bulk(3)),
        interfaces=(4, 6, 63),
        settings=((4, 1),),
        endpoints=(0x81, 0x82, 3),
    )
    yield Case("no interface counted", configuration(0, interface(0, 0, 1), bulk(0x81)))
    for number in (64, 255):
        beside = configuration(2, interface(number, 0, 1), bulk(0x82), interface(0, 0, 2), BOTH)
        more = {"interfaces": (0, number), "endpoints": (0x81, 1), "unclaimed": (number,)}
        yield Case(f"interface {number}", beside, **more)
    parts = [interface(0, setting, 1) + bulk(0x81) for setting in range(200)]
    yield Case("200 settings", configuration(1, *parts), settings=((0, 127),))
    yield Case(
        "long descriptors, and those of classes",
        configuration(
            1,
            bytes((11, 4, 0, 0, 2, 0xFF, 0, 0, 0, 0xAA, 0xBB)),
            bytes((5, 0x24, 1, 2, 3)),
            bytes((9, 5, 0x81, ISOCHRONOUS, 64, 0, 4, 0, 0)),
            bytes((7, 0x25, 1, 0, 0, 0, 0)),
            bytes((2, 0xFF)),
            bulk(2),
        ),
        endpoints=(0x81, 2),
    )
    longer = bytearray(configuration(1, b"\xaa\xbb", interface(0, 0, 2), BOTH))
    longer[0] = 11
    yield Case("11 bytes of configuration", bytes(longer), endpoints=(0x81, 1))
    short = configuration(
        2,
        interface(0, 0, 3),
        bytes((6, 5, 0x82, BULK, 0, 2)),
        bulk(0x81),
        bytes((8, 4, 1, 0, 1, 0xFF, 0, 0)),
        bulk(0x83),
    )
    yield Case("short descriptors", short, gone=(0x82, 0x83))
    strangers = bytes((18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 16, 0, 0, 1, 0, 0, 0, 1)), bytes((9, 2, 32, 0, 1, 2, 0, 0x80, 50))
    inside = configuration(1, strangers[0], interface(0, 0, 1), strangers[1], bulk(0x81))
    yield Case("other devices and configurations inside", inside)
    second = configuration(1, interface(0, 0, 1), bulk(0x83), number=2)
    yield Case("two configurations", PLAIN, second, endpoints=(0x81, 1), gone=(0x83,))
    yield Case("two configurations of one number", PLAIN, second[:5] + b"\1" + second[6:], endpoints=(0x81, 1))
    yield Case("numbers 2 and 1", second, PLAIN, number=2, endpoints=(0x83,))
    yield Case("two configurations, the first cut", bytes.fromhex(CUT), second, endpoints=(0x81, 1))
    cut = bytes.fromhex(CUT.replace("3c00", "1900", 1))
    yield Case("two configurations, the first longer than it says", cut, second, gone=(1,))
    yield Case("inside the first of two", inside, second)
    # 6.1 logs that it chops the device to one configuration, and returns the error all the same.
    yield Case("one configuration of two", PLAIN, said=2, absent=True)
    yield Case("nine configurations", *[PLAIN[:5] + bytes((n,)) + PLAIN[6:] for n in range(1, 10)], endpoints=(0x81, 1))
    yield Case("SET_CONFIGURATION stalls", PLAIN, number=None, interfaces=(), endpoints=(), stalls=True, gone=(0x81,))
    yield Case("unconfigured by hand", PLAIN, number=None, interfaces=(), endpoints=(), by_hand=True, gone=(0x81,))
    yield Case("wTotalLength 8", "09020800010100803209040000010b000000", interfaces=(), endpoints=(), refused=True)
    low = configuration(1, interface(0, 0, 2), bulk(0x81, 64), endpoint(1, INTERRUPT, 64, 0))
    yield Case("bulk at low speed", low, speed=LOW, endpoints=(0x81, 1))
    full = configuration(1, interface(0, 0, 3), bulk(0x81), bulk(1), endpoint(0x82, ISOCHRONOUS, 2000, 0))
    yield Case("packets too long at full speed", full, speed=FULL, endpoints=(0x81, 1, 0x82))
    wide = configuration(
        1, interface(0, 0, 3), bulk(0x81, 1024), bulk(1, 2047), endpoint(0x82, ISOCHRONOUS, 0x1400, 77)
    )
    yield Case("odd packets and intervals at high speed", wide, endpoints=(0x81, 1, 0x82))
    empty = configuration(1, interface(0, 0, 3), BOTH, endpoint(0x82, INTERRUPT, 0, 8))
    yield Case("wMaxPacketSize 0", empty, endpoints=(0x81, 1))
    companion = bytes((6, 0x30, 200, 77, 0xFF, 0xFF))
    fast = configuration(
        1, interface(0, 0, 3), bulk(0x81, 1024), companion, bulk(1, 1024), endpoint(0x82, INTERRUPT, 64, 4), companion
    )
    yield Case("companions wrong and missing at super speed", fast, speed=SUPER, endpoints=(0x81, 1, 0x82))
    for length in (4097, 6000, 65535):
        head = interface(0, 0, 0)
        tail = interface(1, 0, 2) + BOTH
        filled = configuration(2, head, device.filler(length - 9 - len(head) - len(tail)), tail)
        yield Case(f"{length} bytes", filled, interfaces=(0, 1), endpoints=(0x81, 1))


# ---- A case's way ----------------------------------------------------------------------------------


def settled(case, busid):
    """Whether the kernel is done with the device, which it keeps locked until then."""
    if len(interfaces_of(busid)) < len(case.interfaces):
        return False
    value = attribute(busid, "bConfigurationValue")
    return value is not None and (value != "" or case.stalls)


def as_found(case, busid):
    return drivers_of(busid), attribute(busid, "bConfigurationValue"), list(tree_of(busid))


def check_list(case, host, busid):
    tree = tree_of(busid)
    classes = ["".join(facts[2:]) for facts, _ in tree.values()]
    count = int(attribute(busid, "bNumConfigurations"))
    wanted = count, case.number or 0, len(tree), classes

    def listed():
        with Guest(host) as client:
            return client.listed(busid)

    # If the machine is so busy that a scan takes a second, clients get the last known state: the
    # device before this one.
    try:
        wait_for("DEVLIST", lambda: listed() == wanted)
    except Wrong as wrong:
        raise Wrong(f"DEVLIST says {listed()}, not {wanted}") from wrong


def imported(host, busid):
    """A client that has it."""
    end = time.monotonic() + PATIENCE
    while True:
        client = Guest(host)
        try:
            return client, client.attach(busid)
        except Refused:
            client.close()
            if time.monotonic() > end:
                raise


def check_descriptors(client, busid):
    """GET_DESCRIPTOR of each configuration returns what the host has of it."""
    at, bytes_ = 18, descriptors_of(busid)
    status, found = client.control(0x80, 6, 0x100, 0, 18)
    # The descriptor is the device's own; the host may know fewer configurations.
    expect("the device descriptor", (status, found[:17]), (0, bytes_[:17]))
    for index in range(bytes_[17]):
        status, found = client.control(0x80, 6, 0x200 | index, 0, 0xFFFF)
        expect(f"status of configuration {index}", status, 0)
        # sysfs ends at 65,553 bytes.
        expect(f"configuration {index}", found.hex(), bytes_[at : at + len(found)].hex())
        at += len(found)
    expect("bytes in all configurations", at, len(bytes_))


def use_endpoints(case, client, busid):
    used = set()
    for number, (_, endpoints) in tree_of(busid).items():
        for address, (attributes, packet, _) in endpoints.items():
            if number in case.unclaimed or not packet or attributes & 3 == CONTROL:
                continue
            used.add(address)
            status = client.move(address, attributes & 3, packet & 0x7FF)
            expect(f"endpoint {address:02x}", status, 0)
    expect("the kernel's endpoints", sorted(used), sorted(case.endpoints))


def use(case, host, busid):
    with imported(host, busid)[0] as client:
        held = {name: driver for name, driver in drivers_of(busid).items() if driver not in (None, "usbfs")}
        left = {f":{case.number}.{number}" for number in case.unclaimed}
        expect("drivers during the import", {n for n in held if not any(n.endswith(x) for x in left)}, set())
        check_descriptors(client, busid)
        if not case.settings:
            use_endpoints(case, client, busid)
        if case.number is not None:
            expect("SET_CONFIGURATION", client.control(0, 9, case.number, 0)[0], 0)
        for number, setting in case.settings:
            expect(f"SET_INTERFACE {number} {setting}", client.control(1, 11, setting, number)[0], 0)
        use_endpoints(case, client, busid)
        for address in case.gone:
            if not client.move(address, BULK, 8):
                raise Wrong(f"endpoint {address:02x}, which the kernel has not, does its work")


def attach_again(case, host, busid):
    """By the kernel's client, which must come to the same as the host."""
    client, entry = imported(host, busid)
    expect("speed of IMPORT", entry.speed, case.speed)
    again = Attached(client.socket, 0, entry.speed, entry.devid)
    client.close()
    wait_for(f"interfaces of {again.busid}", lambda: settled(case, again.busid))
    if not case.by_hand:
        expect("the client's tree", tree_of(again.busid), tree_of(busid))
        number = "" if case.number is None else str(case.number)
        expect("the client's configuration", attribute(again.busid, "bConfigurationValue"), number)
    elif not wait_for("the client's configuration", lambda: interfaces_of(again.busid)):
        raise Wrong("nothing of it")
    expect("the client's descriptors", descriptors_of(again.busid).hex(), descriptors_of(busid).hex())
    again.detach()


def check(case, host, busid, raw):
    wait_for(f"{len(case.interfaces)} interfaces of the host", lambda: settled(case, busid))
    if case.by_hand:
        with open(f"{DEVICES}/{busid}/bConfigurationValue", "w", encoding="ascii") as file:
            file.write("-1")
    expect("the kernel's interfaces", list(tree_of(busid)), case.interfaces)
    number = "" if case.number is None else str(case.number)
    expect("the kernel's configuration", attribute(busid, "bConfigurationValue"), number)
    found = as_found(case, busid)
    raw.setups.clear()
    check_list(case, host, busid)
    if case.refused:
        try:
            Client(host).attach(busid)
        except Refused as refused:
            expect("the refusal", refused.status, 1)
            return found
        raise Wrong("it can be imported")
    for step in (use, attach_again):
        step(case, host, busid)
        try:
            wait_for("the device as it was", lambda: as_found(case, busid) == found, 15)
        except Wrong as wrong:
            raise Wrong(f"after {step.__name__}: {as_found(case, busid)}, not {found}") from wrong
    asked = [setup.hex() for setup in raw.setups if setup[:2] == b"\x80\x08"]
    expect("GET_CONFIGURATIONs", asked, [])
    if case.number != 0 and not case.by_hand:
        unset = [s.hex() for s in raw.setups if s[:4] == b"\0\x09\0\0"]
        expect("SET_CONFIGURATION 0", unset, 2 * ["0009000000000000"] if case.renewed else [])
    return found


def run(case, host):
    ours, theirs = socket.socketpair()
    raw = Raw(case)
    threading.Thread(target=raw.serve, args=(ours,), daemon=True).start()
    try:
        inner = Attached(theirs, 1, case.speed)
    except Wrong:
        if case.absent:
            return {}, None, []
        raise
    finally:
        theirs.close()
    try:
        if case.absent:
            raise Wrong("the kernel has it")
        found = check(case, host, inner.busid, raw)
    finally:
        inner.detach()
        ours.close()
    return found


def all_cases(port, *words):
    failed = 0
    for case in cases():
        if words and not any(word in case.name for word in words):
            continue
        begun = time.monotonic()
        try:
            drivers = run(case, f"127.0.0.1:{port}")[0]
            bound = sum(driver is not None for driver in drivers.values())
            print(f"ok    {case.name} ({bound} drivers, {time.monotonic() - begun:.1f} s)", flush=True)
        except Exception as wrong:  # The next case may say more.
            failed += 1
            print(f"WRONG {case.name}: {type(wrong).__name__} {wrong}"[:600], flush=True)
    print(f"{failed} wrong", flush=True)
    sys.exit(failed != 0)


if __name__ == "__main__":
    {"cases": all_cases}[sys.argv[1]](*sys.argv[2:])
