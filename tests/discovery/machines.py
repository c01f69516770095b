"""Machines on one network: namespaces joined by a bridge."""

import os
import pathlib
import signal
import subprocess
import sys
import time

# Longest wait for anything, in seconds.
PATIENCE = 60

# A machine's own name, and its own places for running programs.
MACHINE = """
set -e
hostname {name}
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/avahi-daemon
ip link set lo up
echo ready
exec sleep infinity
"""


class Machine:
    """A machine of the network."""

    def __init__(self, name, address, work):
        self.name, self.address, self.work = name, address, work
        unshare = "unshare --net --mount --uts --pid --fork --kill-child --mount-proc".split()
        script = MACHINE.format(name=name)
        self.holder = subprocess.Popen([*unshare, "sh", "-c", script], stdout=subprocess.PIPE)
        if self.holder.stdout.readline() != b"ready\n":
            sys.exit(f"tests/discovery/run: the machine {name} can't be made: is this root?")
        children = pathlib.Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        self.first = children.read_text().split()[0]

    def command(self, *words):
        inside = ["nsenter", "-t", self.first, "-n", "-m", "-u", "-p"]
        return [*inside, "env", "-u", "RUST_LOG", "RUNTIME_DIRECTORY=/run", *words]

    def run(self, *words, status=0, text=None):
        """Runs a program to its end; its output."""
        ended = subprocess.run(self.command(*words), input=text, text=True, capture_output=True,
                               timeout=PATIENCE)
        if ended.returncode != status:
            sys.exit(f"tests/discovery/run: FAILED: {self.name}: {words}: status "
                     f"{ended.returncode}: {ended.stdout}{ended.stderr}")
        return ended.stdout if status == 0 else ended.stderr

    def start(self, *words, stdin=subprocess.DEVNULL):
        """Runs a program in the background; its log is in the file that the result names."""
        number = len(list(self.work.glob(f"{self.name}-*.log")))
        path = self.work / f"{self.name}-{number}.log"
        with open(path, "wb") as log:
            process = subprocess.Popen(self.command(*words), stdin=stdin, stdout=log, stderr=log)
        process.log = path
        return process

    def remove(self):
        self.holder.send_signal(signal.SIGKILL)
        self.holder.wait()


class Network:
    """Machines on a bridge of a namespace that has nothing else."""

    def __init__(self, names, work):
        self.bridge = Machine("bridge", None, work)
        self.bridge.run("ip", "link", "add", "br0", "type", "bridge")
        self.bridge.run("ip", "link", "set", "br0", "up")
        self.machines = []
        for number, name in enumerate(names, 1):
            machine = Machine(name, f"10.84.0.{number}", work)
            link = f"veth{number}"
            subprocess.run(["ip", "link", "add", link, "netns", self.bridge.first, "type", "veth",
                            "peer", "name", "eth0", "netns", machine.first], check=True)
            self.bridge.run("ip", "link", "set", link, "master", "br0", "up")
            machine.run("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
            machine.run("ip", "link", "set", "eth0", "up")
            self.machines.append(machine)

    def remove(self):
        for machine in (*self.machines, self.bridge):
            machine.remove()


def child_of(process):
    """The process of a program that runs in a machine, as this machine counts."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        if children:
            return int(children.split()[0])
        time.sleep(0.01)
    return sys.exit("tests/discovery/run: FAILED: the program does not start")


def stop(process, how=signal.SIGTERM):
    os.kill(child_of(process), how)
    return process.wait(PATIENCE)
