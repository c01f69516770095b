"""What tests/discovery/run checks, once the tools are there."""

import atexit
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

from checks import Checks
from machines import PATIENCE, Network, child_of, stop

TOOLS = "ip unshare nsenter hostname avahi-daemon avahi-browse avahi-resolve dbus-daemon".split()

# The time over which the cost of an idle server is taken, in seconds.
IDLE = 30

# What an announcement may cost an idle server: bytes of memory, and a part of a processor.
MEMORY_MAX = 1 << 20
PROCESSOR_MAX = 0.001

CHECKS = Checks("tests/discovery/run", PATIENCE)
check, wait = CHECKS.check, CHECKS.wait


class Lab:
    """The machines with their servers, and the programs of the client."""

    def __init__(self, binary, venv, work):
        self.binary, self.venv, self.work = binary, venv, work
        self.network = Network(("desk", "attic", "twin", "client"), work)
        atexit.register(self.network.remove)
        self.desk, self.attic, self.twin, self.client = self.network.machines

    def serve(self, machine, *arguments):
        server = machine.start(self.binary, "serve", "--simulate=serial,disk,loopback",
                               "--allow=10.84.0.0/24", "--advertise", *arguments)
        wait("the server is announced", lambda: "announced" in server.log.read_text())
        return server

    def list(self, machine=None, *arguments):
        words = [self.binary, "list", "--discover", *(arguments or ["--json"])]
        return json.loads((machine or self.client).run(*words))

    def exporters(self, machine=None):
        return {one["name"]: one for one in self.list(machine)["exporters"]}

    def tool(self, name, *arguments):
        return self.client.run(f"{self.venv}/bin/{name}", *arguments)


def found_by_usbferry(lab):
    """Names, addresses and devices; the metrics only where everybody reaches them."""
    found = wait("both servers are found", lambda: len(all := lab.exporters()) == 2 and all)
    check("both servers have their machines' names", set(found) == {"desk", "attic"}, found)
    desk, attic = found["desk"], found["attic"]
    check("the address is that of the network", desk["hosts"] == ["10.84.0.1:3240"], desk)
    check("another port is found", attic["hosts"] == ["10.84.0.2:3241"], attic)
    names = [device["busid"] for device in desk["devices"]]
    check("the devices are shown", names == ["1-1", "stick", "1-3"], names)
    names = [device["busid"] for device in attic["devices"]]
    check("a device of other clients is not shown", names == ["stick", "1-3"], names)
    check("the metrics of all addresses are known", desk["metrics"] == "10.84.0.1:9240", desk)
    check("metrics for the machine itself are nobody's", attic["metrics"] is None, attic)
    targets = lab.list(None, "--prometheus-sd")
    check("Prometheus gets the server with metrics", targets == [{
        "targets": ["10.84.0.1:9240"],
        "labels": {"exporter": "desk", "__meta_usbferry_version": desk["version"]}}], targets)
    table = lab.client.run(lab.binary, "list", "--discover")
    check("people see a title for each server",
          re.search(r"^attic at 10\.84\.0\.2:3241 \(usbferry [\d.]+\)$", table, re.M), table)
    check("a server's own machine finds the server", "desk" in lab.exporters(lab.desk))


def found_by_others(lab):
    """`pyusb-usbip-backend`, as installed."""
    services = {one["name"]: one for one in json.loads(
        lab.tool("usbip-pyusb-test", "discover", "--json"))}
    check("usbip-pyusb-test discovers both", set(services) == {"desk", "attic"}, services)
    text = services["attic"]["txt"]
    check("a device of other clients does not count", text["exports"] == "2", text)
    check("nothing else is told", set(text) == {"txtvers", "version", "exports"}, text)
    text = services["desk"]["txt"]
    check("the page's port is told", (text["exports"], text["http"]) == ("3", "9240"), text)
    listed = lab.tool("lsusbip")
    kinds = re.findall(r"ID (\w{4}:\w{4}) \((\w+)-[0-9a-f]{8}\.local", listed)
    expected = [("1209:0004", "desk"), ("1209:0002", "desk"), ("1209:0001", "desk"),
                ("1209:0002", "attic"), ("1209:0001", "attic")]
    check("lsusbip lists the devices of both", kinds == expected, listed)


def same_names(lab):
    """A third machine of the name of the first takes another name, and the first keeps its name."""
    lab.twin.run("hostname", "desk")
    server = lab.serve(lab.twin, "--listen=:3240")
    found = wait("the third server is found", lambda: len(all := lab.exporters()) == 3 and all)
    check("the first server keeps its name", found["desk"]["hosts"] == ["10.84.0.1:3240"], found)
    [name] = set(found) - {"desk", "attic"}
    check("the third server has a tag", re.fullmatch(r"desk \([0-9a-f]{8}\)", name), name)
    return server


# The kernel's client side, as files: where an attach is written.
VHCI = """
set -e
mount -t tmpfs tmpfs /sys
mkdir -p /sys/devices/platform/vhci_hcd.0
cd /sys/devices/platform/vhci_hcd.0
echo 'hub port sta spd dev      sockfd local_busid' > status
echo 'hs  0000 004 000 00000000 000000 0-0' >> status
echo 'ss  0001 004 000 00000000 000000 0-0' >> status
: > attach
: > detach
"""
ATTACH = "/sys/devices/platform/vhci_hcd.0/attach"


def attached_by_name(lab):
    """`usbferry attach NAME`, with a kernel of files."""
    client, attach = lab.client, (lab.binary, "attach")
    client.run("sh", "-c", VHCI)
    said = json.loads(client.run(*attach, "1-1", "--json"))
    check("a device of a single server is attached",
          (said["event"], said["host"]) == ("attached", "10.84.0.1:3240"), said)
    check("the kernel gets the connection", re.match(r"0 \d+ \d+ 3", client.run("cat", ATTACH)))
    said = json.loads(client.run(*attach, "serial:05EED0000001", "--json"))
    check("a serial number is found", said["host"].startswith("10.84.0."), said)
    said = client.run(*attach, "stick", status=1)
    check("several servers are told", "desk at 10.84.0.1:3240" in said and
          "attic at 10.84.0.2:3241" in said and "usbferry attach HOST stick" in said, said)
    said = client.run(*attach, "nosuch", status=1)
    check("a device that is nowhere is told", "none of 2 servers" in said, said)
    terminal = client.run("script", "--quiet", "--return", "--command",
                          f"{lab.binary} attach stick --json", "/dev/null", text="9\n2\n")
    hosts = ["10.84.0.2:3241", "10.84.0.1:3240"]
    check("a terminal is asked until the answer is a number of the list",
          terminal.count("From which? [1-2]") == 2 and '"event":"attached"' in terminal and
          any(host in terminal.splitlines()[-1] for host in hosts), terminal)


def attached_where_the_server_is_now(lab):
    """`attach --persist NAME` waits for a server, and follows the server to another address."""
    keeper = lab.client.start(lab.binary, "attach", "board", "--persist", "--json")
    wait("the command waits", lambda: "looking until there is one" in keeper.log.read_text())
    server = lab.serve(lab.twin, "--listen=:3240", "--device=board=1209:0001")

    def hosts(event):
        lines = [json.loads(line) for line in keeper.log.read_text().splitlines()
                 if line.startswith("{")]
        return [line["host"] for line in lines if line["event"] == event]

    wait("the device is attached", lambda: hosts("attached") == ["10.84.0.3:3240"])
    # As by DHCP: the server goes on, and its old address is nobody's.
    lab.twin.run("ip", "address", "delete", "10.84.0.3/24", "dev", "eth0")
    lab.twin.run("ip", "address", "add", "10.84.0.33/24", "dev", "eth0")
    wait("the device is attached again", lambda: len(hosts("attached")) == 2)
    check("the device is attached at the new address", hosts("attached")[1] == "10.84.0.33:3240",
          keeper.log.read_text())
    check("the server has not ended", server.poll() is None)
    lab.twin.run("ip", "address", "delete", "10.84.0.33/24", "dev", "eth0")
    lab.twin.run("ip", "address", "add", "10.84.0.3/24", "dev", "eth0")
    check("the command ends", stop(keeper) == 0, keeper.log.read_text())
    check("the server that moved ends", stop(server) == 0)


# Follows the servers with zeroconf, a line of JSON for each that comes or goes.
FOLLOW = """
import sys, time
from zeroconf import ServiceBrowser, ServiceListener, Zeroconf
class Listener(ServiceListener):
    def add_service(self, zeroconf, kind, name): print("+", name, flush=True)
    def update_service(self, zeroconf, kind, name): print("=", name, flush=True)
    def remove_service(self, zeroconf, kind, name): print("-", name, flush=True)
browser = ServiceBrowser(Zeroconf(), "_usbip._tcp.local.", Listener())
time.sleep(1000)
"""


def end_is_told(lab, server, attic):
    """A server that ends is gone at once for everybody who follows."""
    follower = lab.client.start(f"{lab.venv}/bin/python", "-c", FOLLOW)
    said = follower.log.read_text
    wait("zeroconf knows the servers", lambda: said().count("+ ") == 3)
    check("a server ends", stop(server) == 0)
    wait("the end is heard", lambda: "- desk (" in said())
    check("zeroconf hears of a server's end", "- desk._" not in said() and "- attic" not in said())
    stop(attic, signal.SIGKILL)
    check("a killed server is not found any more", set(lab.exporters()) == {"desk"})
    stop(follower)


def beside_avahi(lab):
    """Avahi on a server's machine keeps its names, and an Avahi elsewhere finds the server."""
    for machine in (lab.desk, lab.client):
        machine.start("dbus-daemon", "--system", "--nofork", "--nopidfile")
        wait("D-Bus runs", lambda: machine.run("sh", "-c", "ls /run/dbus").strip())
        machine.start("avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits")
        wait("Avahi runs", lambda: "pid" in machine.run("sh", "-c", "ls /run/avahi-daemon"))
    wait("Avahi has the machine's name", lambda: "10.84.0.1" in lab.client.run(
        "sh", "-c", "avahi-resolve -4 -n desk.local 2>&1 || true"))
    check("Avahi keeps the machine's name", True)
    browse = ("avahi-browse", "-rpt", "_usbip._tcp")
    found = wait("Avahi finds the server", lambda: [
        line for line in lab.client.run(*browse).splitlines()
        if line.startswith("=") and ";IPv4;" in line])
    fields = found[0].split(";")
    check("Avahi resolves the server", fields[3] == "desk" and fields[7:9] == ["10.84.0.1", "3240"],
          found)
    check("Avahi reads the facts", '"exports=3"' in fields[9], found)
    check("usbferry finds the server beside Avahi", set(lab.exporters()) == {"desk"})
    check("Avahi's own machine lists the server", "desk" in lab.exporters(lab.desk))


# Sends messages from standard input, each with its length in front.
FLOOD = """
import socket, struct, sys
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flood.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
flood.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
flood.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
flood.bind(("", 5353))
data = sys.stdin.buffer.read()
at = 0
while at < len(data):
    length = struct.unpack_from("<I", data, at)[0]
    flood.sendto(data[at + 4:at + 4 + length], ("224.0.0.251", 5353))
    at += 4 + length
"""


def name(*labels):
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def hostile_messages(seed):
    """Broken messages, and good messages with lies."""
    chance = random.Random(seed)
    service = name(b"_usbip", b"_tcp", b"local")
    question = struct.pack(">6H", 0, 0, 1, 0, 0, 0) + service + struct.pack(">HH", 12, 1)
    for number in range(3000):
        instance = name(f"liar {number}".encode() + b"\x1b[31m\xff", b"_usbip", b"_tcp", b"local")
        host = name(b"liar", b"local")
        answers = [
            (service, 12, instance), (instance, 33, struct.pack(">3H", 0, 0, 3240) + host),
            (instance, 16, b"\x09version=1\x40http=70000"), (host, 1, bytes([127, 0, 0, 1])),
            (host, 1, bytes(4)), (host, 28, bytes(15) + b"\x01")]
        lie = struct.pack(">6H", 0, 0x8400, 0, len(answers), 0, 0) + b"".join(
            who + struct.pack(">HHIH", kind, 1, 120, len(data)) + data
            for who, kind, data in answers)
        broken = bytearray(chance.choice((lie, question)))
        for _ in range(chance.randrange(1, 8)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        yield from (lie, bytes(broken), chance.randbytes(chance.randrange(1500)),
                    struct.pack(">6H", 0, 0x8400, 65535, 65535, 65535, 65535), b"\xc0\x0c" * 400)


def hostile(lab, server):
    """A machine that floods the network with messages of its choice."""
    before = memory(child_of(server))
    messages = b"".join(struct.pack("<I", len(one)) + one for one in hostile_messages(1))
    path = lab.work / "flood"
    path.write_bytes(messages)
    with open(path, "rb") as data:
        flood = lab.twin.start(sys.executable, "-c", FLOOD, lab.twin.address, stdin=data)
    found = lab.exporters()
    check("a look during a flood finds the server", "desk" in found, list(found))
    liars = [one for name, one in found.items() if name != "desk"]
    check("nobody is sent to this machine", not any(
        host.startswith(("127.", "0.", "[::1]")) for one in liars for host in one["hosts"]), liars)
    check("the flood ends", flood.wait(PATIENCE) == 0, flood.log.read_text())
    check("the server goes on", "desk" in lab.exporters() and server.poll() is None)
    grown = memory(child_of(server)) - before
    check("the flood fills no memory", grown < MEMORY_MAX, grown)
    log = server.log.read_text()
    check("the server's log has no fault", not re.search("WARN|ERROR|panicked", log), log)


def memory(process):
    """Bytes that are no file's: the program's own pages are private as long as the program runs once."""
    rollup = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB", rollup, re.M)) * 1024


def processor(process):
    """Nanoseconds of processor time of all threads so far."""
    tasks = pathlib.Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def cost(lab):
    """An idle server with announcements beside one without, on a network where others ask."""
    idle = ("serve", "--simulate=serial", "--allow=10.84.0.0/24")
    servers = [lab.attic.start(lab.binary, *idle, "--listen=:3240", "--advertise"),
               lab.attic.start(lab.binary, *idle, "--listen=:3241")]
    wait("the server is announced", lambda: "announced" in servers[0].log.read_text())
    processes = [child_of(server) for server in servers]
    time.sleep(5)  # The announcements go out.
    before = [processor(process) for process in processes]
    time.sleep(IDLE)
    spent = [processor(process) - start for process, start in zip(processes, before)]
    used = [memory(process) for process in processes]
    part = (spent[0] - spent[1]) / (IDLE * 1e9)
    print(f"an announcement costs {used[0] - used[1]} bytes and {part:.5%} of a processor, "
          f"{spent[0] - spent[1]} ns in {IDLE} s")
    check("an announcement costs little memory", used[0] - used[1] < MEMORY_MAX, used)
    check("an announcement costs little of the processor", part < PROCESSOR_MAX, spent)
    for server in servers:
        stop(server)


def main(binary, venv, work):
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    os.environ["PATH"] = path
    missing = [tool for tool in (*TOOLS, "script") if not shutil.which(tool)]
    if missing:
        sys.exit(f"tests/discovery/run: missing: {' '.join(missing)} (see --help)")
    lab = Lab(binary, venv, pathlib.Path(work))
    desk = lab.serve(lab.desk, "--listen=:3240", "--http=:9240", "--device=stick=1209:0002")
    rules = pathlib.Path(work) / "attic.toml"
    rules.write_text('[[rule]]\nid = "1209:0004"\nclients = "10.84.0.99"\n')
    attic = lab.serve(lab.attic, "--listen=10.84.0.2:3241", "--http=127.0.0.1:9240",
                      "--device=stick=1209:0002", f"--config={rules}")
    found_by_usbferry(lab)
    found_by_others(lab)
    attached_by_name(lab)
    attached_where_the_server_is_now(lab)
    twin = same_names(lab)
    end_is_told(lab, twin, attic)
    beside_avahi(lab)
    hostile(lab, desk)
    cost(lab)
    check("the server ends", stop(desk) == 0)
    print(f"{CHECKS.passed} passed, 0 failed")


main(*sys.argv[1:])
