"""A farm on one machine: exporters, a coordinator and clients in network namespaces, and trouble.

See `farm/run --help`. The verdict is by the logs of both sides: usbferry's events and the clients'
own notes, all by the clock of this machine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
from labgrid.remote.generated import labgrid_coordinator_pb2 as pb2
from labgrid.remote.generated import labgrid_coordinator_pb2_grpc as pb2_grpc

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from calm import (  # noqa: E402
    COORDINATOR,
    PORT,
    View,
    calm,
    reachable,
    restless,
    sweep,
    wait,
)
from verdict import (  # noqa: E402
    HEALING,
    HERSELF,
    Notes,
    Trouble,
    client_address,
    exporter_address,
    verdict,
)

PROGRAMS = Path(sys.executable).parent
CLONE_NEWNET = 0x40000000

# Seconds from a program's end to its restart, as RestartSec of systemd.
RESTART = 1.0


@dataclass
class Farm:
    """All programs of the farm, and what was seen."""

    options: argparse.Namespace
    folder: Path
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    wanted: dict[str, tuple[str, list[str], dict[str, str]]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    ended: bool = False
    wires: subprocess.Popen[bytes] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    view: View = field(default_factory=View)

    # Setting up

    def exporters(self) -> range:
        return range(1, self.options.exporters + 1)

    def clients(self) -> range:
        return range(1, self.options.clients + 1)

    def make_network(self) -> None:
        nodes = {"lgf-c": "10.77.0.1", "lgf-m": HERSELF}
        nodes |= {f"lgf-e{each}": exporter_address(each) for each in self.exporters()}
        nodes |= {f"lgf-k{each}": client_address(each) for each in self.clients()}
        self.wires = subprocess.Popen(
            [sys.executable, str(HERE / "wires.py"), json.dumps(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.wires.stdout and self.wires.stdout.readline() == b"ready\n"
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns/lgf-m").open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def set_wire(self, node: str, state: float | None) -> None:
        assert self.wires and self.wires.stdin
        self.wires.stdin.write(json.dumps([node, state]).encode() + b"\n")
        self.wires.stdin.flush()

    def start(self, name: str, node: str, *command: str, **environment: str) -> None:
        """Starts a program, which is started again whenever it ends."""
        with self.lock:
            self.wanted[name] = (node, list(command), environment)
            self._start(name)

    def _start(self, name: str) -> None:
        node, command, environment = self.wanted[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                ["ip", "netns", "exec", node, *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
            )

    def start_coordinator(self) -> None:
        self.start("coordinator", "lgf-c", str(PROGRAMS / "labgrid-coordinator"))
        wait("the coordinator listens", lambda: reachable(*COORDINATOR.split(":")))

    def start_exporter(self, number: int) -> None:
        name, address = f"e{number}", exporter_address(number)
        hook = [
            str(PROGRAMS / "usbferry-labgrid-authorize"),
            *("--coordinator", COORDINATOR, "--exporter", name),
        ]
        rules = self.folder / f"{name}.toml"
        rules.write_text(
            f'listen = "{address}:{PORT}"\nallow = "10.77.0.0/16"\npeer-timeout = "15s"\n'
            f"[[rule]]\nauthorize = true\non-attach = {json.dumps(hook)}\n"
        )
        devices = f"--simulate=loopback:count={self.options.devices}"
        server = [self.options.usbferry, "serve", devices, "--config", str(rules)]
        node = f"lgf-e{number}"
        self.start(f"usbferry-{name}", node, *server, "--socket", self.socket(number))
        resources = {
            f"d{each}": {
                "cls": "USBFerryDevice",
                "socket": self.socket(number),
                "match": {"busid": f"1-{each}"},
            }
            for each in range(1, self.options.devices + 1)
        }
        config = self.folder / f"{name}.yaml"
        config.write_text(json.dumps({"farm": resources}))
        exporter = [str(PROGRAMS / "labgrid-exporter"), "-c", COORDINATOR, "-n", name]
        self.start(f"labgrid-{name}", node, *exporter, "--hostname", address, str(config))
        threading.Thread(target=self._follow, args=(number,), daemon=True).start()

    def start_client(self, number: int) -> None:
        command = [sys.executable, str(HERE / "client.py"), COORDINATOR]
        self.start(
            f"client-{number}",
            f"lgf-k{number}",
            *(*command, str(self.options.seed * 1000 + number), str(self.racks())),
            LG_HOSTNAME=client_address(number),
            LG_USERNAME=f"k{number}",
        )

    def socket(self, number: int) -> str:
        return str(self.folder / f"e{number}.sock")

    def make_places(self) -> None:
        with grpc.insecure_channel(COORDINATOR) as channel:
            stub = pb2_grpc.CoordinatorStub(channel)
            for number in self.exporters():
                for each in range(1, self.options.devices + 1):
                    name = f"e{number}-d{each}"
                    pattern = f"e{number}/farm/NetworkUSBFerryDevice/d{each}"
                    tags = {"rack": str(number % 10)} | (
                        {"hot": "yes"} if number <= self.hot() else {}
                    )
                    stub.AddPlace(pb2.AddPlaceRequest(name=name))
                    match = pb2.AddPlaceMatchRequest(placename=name, pattern=pattern)
                    stub.AddPlaceMatch(match)
                    stub.SetPlaceTags(pb2.SetPlaceTagsRequest(placename=name, tags=tags))

    def total(self) -> int:
        """All devices."""
        return int(self.options.exporters * self.options.devices)

    def racks(self) -> int:
        """Groups of exporters, by a tag of the places."""
        return min(10, self.options.exporters)

    def hot(self) -> int:
        """Exporters whose devices are wanted by many."""
        return max(1, int(self.options.clients * 0.2 / self.options.devices))

    # Watching

    def _follow(self, number: int) -> None:
        """Notes the events of a server, and of its next life."""
        while not self.ended:
            try:
                with socket.socket(socket.AF_UNIX) as stream:
                    stream.connect(self.socket(number))
                    stream.sendall(b'{"version":1,"request":"events"}\n')
                    for line in stream.makefile():
                        event = json.loads(line)["event"]
                        event["at"] = datetime.fromisoformat(event["time"]).timestamp()
                        self.events.append(event | {"exporter": number})
            except (OSError, ValueError):
                pass
            self.events.append({"event": "end", "at": time.time(), "exporter": number})
            time.sleep(0.02)

    def supervise(self) -> None:
        """Starts programs again, and notes which exporters are whole again."""
        ended_at: dict[str, float] = {}
        while not self.ended:
            with self.lock:
                for name, program in self.programs.items():
                    if program.poll() is None or name.startswith("client") or name in self.down:
                        ended_at.pop(name, None)
                    elif time.time() > ended_at.setdefault(name, time.time()) + RESTART:
                        ended_at.pop(name)
                        self._start(name)
            time.sleep(0.1)

    def note_healed(self) -> None:
        while not self.ended:
            time.sleep(1.0)
            if not self.view.is_fresh():
                continue
            resources = dict(self.view.resources).items()
            there = Counter(path.split("/")[0] for path, each in resources if each["avail"])
            for trouble in self.troubles:
                if trouble.healed is None and trouble.end and trouble.node.startswith("e"):
                    self._judge_healed(trouble, there[trouble.node] == self.options.devices)

    def _judge_healed(self, trouble: Trouble, whole: bool) -> None:
        later = [
            each
            for each in self.troubles
            if each.node == trouble.node and each.begin > trouble.begin and each is not trouble
        ]
        if whole:
            trouble.healed = time.time()
        elif later:
            # The next trouble of the node came first, and answers for both.
            self.troubles.remove(trouble)

    # Trouble

    def make_trouble(self, chance: random.Random, until: float) -> None:
        pending: list[tuple[float, Trouble]] = []
        while time.time() < until or pending:
            if time.time() < until and len(pending) < max(2, self.options.exporters // 5):
                trouble, seconds = self._begin(chance)
                if trouble.node not in {each.node for _, each in pending}:
                    self.troubles.append(trouble)
                    self._do(trouble, chance)
                    pending.append((time.time() + seconds, trouble))
            for due, trouble in list(pending):
                if time.time() >= due:
                    self._undo(trouble)
                    pending.remove((due, trouble))
            time.sleep(chance.uniform(0.2, 3.0))

    def _begin(self, chance: random.Random) -> tuple[Trouble, float]:
        exporter = f"e{chance.choice(self.exporters())}"
        client = f"k{chance.choice(self.clients())}"
        kinds = {
            "server killed": (exporter, 1, 5),
            "server stopped": (exporter, 1, 5),
            "labgrid-exporter killed": (exporter, 1, 8),
            "both killed": (exporter, 1, 5),
            "exporter cut": (exporter, 3, 45),
            "exporter delayed": (exporter, 5, 20),
            "client cut": (client, 3, 45),
            "client delayed": (client, 5, 20),
        }
        kind = chance.choice(sorted(kinds))
        node, shortest, longest = kinds[kind]
        return Trouble(kind, node, time.time()), chance.uniform(shortest, longest)

    def _programs_of(self, trouble: Trouble) -> list[str]:
        server, exporter = f"usbferry-{trouble.node}", f"labgrid-{trouble.node}"
        whom = {
            "server killed": [server],
            "server stopped": [server],
            "both killed": [server, exporter],
        }
        return whom.get(trouble.kind, [exporter])

    def _do(self, trouble: Trouble, chance: random.Random) -> None:
        if trouble.kind.endswith("cut"):
            self.set_wire(f"lgf-{trouble.node}", None)
        elif trouble.kind.endswith("delayed"):
            self.set_wire(f"lgf-{trouble.node}", chance.uniform(0.02, 0.3))
        else:
            with self.lock:
                for name in self._programs_of(trouble):
                    self.down.add(name)
                    how = signal.SIGTERM if trouble.kind == "server stopped" else signal.SIGKILL
                    self.programs[name].send_signal(how)

    def _undo(self, trouble: Trouble) -> None:
        if trouble.kind.endswith(("cut", "delayed")):
            self.set_wire(f"lgf-{trouble.node}", 0.0)
        else:
            with self.lock:
                self.down -= set(self._programs_of(trouble))
        trouble.end = time.time()

    # The end

    def stop_clients(self) -> None:
        clients = [program for name, program in self.programs.items() if name.startswith("client")]
        for program in clients:
            program.terminate()
        end = time.time() + 180 * self.options.patience
        for program in clients:
            program.wait(max(1.0, end - time.time()))

    def clean_up(self) -> None:
        self.ended = True
        with self.lock:
            for program in self.programs.values():
                if program.poll() is None:
                    program.kill()
            for program in self.programs.values():
                program.wait()
        if self.wires and self.wires.stdin:
            self.wires.stdin.close()
            self.wires.wait(10)
        for each in Path("/run/netns").glob("lgf-*"):
            subprocess.run(["ip", "netns", "del", each.name], check=False)

    def notes(self) -> Notes:
        """The clients' notes, by the clients' numbers."""
        found: Notes = {}
        for number in self.clients():
            text = (self.folder / f"client-{number}.log").read_text()
            lines = [line for line in text.splitlines() if line.startswith("{")]
            found[number] = [json.loads(line) for line in lines]
        return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="farm/run", description=__doc__)
    parser.add_argument("--exporters", type=int, default=40)
    parser.add_argument("--devices", type=int, default=5, help="of each exporter")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300, help="of trouble")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=1, help="stretches all limits of time")
    parser.add_argument("--folder", type=Path, required=True, help="for logs")
    parser.add_argument("--usbferry", required=True, help="the program")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for old in options.folder.iterdir():
        old.unlink()
    farm = Farm(options, options.folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return report(farm)
    finally:
        farm.clean_up()


def calm_down(farm: Farm, end: float) -> None:
    """Waits until everything is over, and uses every place once more."""
    patience = farm.options.patience
    wait("nobody holds anything", lambda: calm(farm.view, farm.total()), HEALING * patience)
    healing = [each for each in farm.troubles if each.node[0] == "e"]
    wait("all troubles are healed", lambda: all(each.healed for each in healing), 5 * patience)
    print(f"calm {time.time() - end:.0f} s after the last trouble", flush=True)
    swept = sweep(farm.options.exporters, farm.options.devices)
    print(f"places that could be acquired and released afterwards: {swept}", flush=True)


def report(farm: Farm) -> int:
    begin, patience = time.time(), farm.options.patience
    farm.make_network()
    farm.start_coordinator()
    farm.make_places()
    farm.view.start()
    for number in farm.exporters():
        farm.start_exporter(number)
    threading.Thread(target=farm.supervise, daemon=True).start()
    wait(
        "all devices are at the coordinator", lambda: calm(farm.view, farm.total()), 600 * patience
    )
    print(
        f"{farm.options.exporters} exporters with {farm.options.devices} devices each are up after "
        f"{time.time() - begin:.0f} s",
        flush=True,
    )
    for number in farm.clients():
        farm.start_client(number)
    threading.Thread(target=farm.note_healed, daemon=True).start()
    farm.make_trouble(random.Random(farm.options.seed), time.time() + farm.options.seconds)
    end = time.time()
    farm.stop_clients()
    print(f"all clients have ended {time.time() - end:.0f} s after the last trouble", flush=True)
    wrong = []
    try:
        calm_down(farm, end)
    except TimeoutError as error:
        wrong.append(f"{error}, but {', '.join(restless(farm.view))}")
    wrong += verdict(farm.notes(), farm.events, farm.troubles, patience)
    for each in wrong:
        print(f"WRONG: {each}")
    print("all well" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
