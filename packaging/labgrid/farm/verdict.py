"""The verdict on a farm, by the logs of both sides: usbferry's events and the clients' notes."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

# The node that looks at the farm, and uses devices itself when everything is over.
HERSELF = "10.77.0.2"

# usbferry's own default.
PEER_TIMEOUT = 15.0

# labgrid: the coordinator's keepalive takes 10 s and 15 s to notice a dead exporter, whose name is
# taken until then; a new exporter starts after RestartSec; places get resources back every 15 s.
LABGRID_OWN = 10.0 + 15.0 + 1.0 + 15.0

# From an exporter's trouble's end until all its devices are there again, at most.
HEALING = PEER_TIMEOUT + LABGRID_OWN

# A client may show a sign of life until the cut, and the server looks every half second.
LATE = 2.0

# The clients' notes, by the clients' numbers.
Notes = dict[int, list[dict[str, Any]]]


def exporter_address(number: int) -> str:
    return f"10.77.1.{number}"


def client_address(number: int) -> str:
    return f"10.77.2.{number}"


@dataclass
class Trouble:
    """What was done to whom, and when; `healed`: an exporter's resources are all there again."""

    kind: str
    node: str
    begin: float
    end: float = 0.0
    healed: float | None = None


@dataclass(frozen=True)
class Hold:
    """A client's hold of a place, by the client's notes, or of a device, by usbferry's events."""

    device: str
    address: str
    begin: float
    end: float

    def overlaps(self, other: Hold) -> float:
        return min(self.end, other.end) - max(self.begin, other.begin)


def holds_of_clients(notes: Notes, begin: str, end: str) -> list[Hold]:
    found = []
    for number, lines in notes.items():
        begun: dict[str, float] = {}
        for line in lines:
            place = line.get("place")
            if line["what"] == begin and place:
                begun[place] = line["time"]
            elif line["what"] == end and place in begun:
                found.append(Hold(place, client_address(number), begun.pop(place), line["time"]))
        if end == "released":
            found += [Hold(p, client_address(number), t, float("inf")) for p, t in begun.items()]
    return found


def sessions_of_servers(events: list[dict[str, Any]]) -> list[Hold]:
    found = []
    begun: dict[str, tuple[str, float]] = {}
    for event in sorted(events, key=lambda each: each["at"]):
        number = event["exporter"]
        if event["event"] == "end":
            gone = [device for device in begun if device.startswith(f"e{number}-")]
        elif event["event"] in ("attach", "detach"):
            device = f"e{number}-d{event['busid'].partition('-')[2]}"
            gone = [device] if device in begun else []
            assert not (gone and event["event"] == "attach"), f"{device} has two clients"
        else:
            continue
        for each in gone:
            address, since = begun.pop(each)
            found.append(Hold(each, address, since, event["at"]))
        if event["event"] == "attach":
            begun[device] = (event["client"].rpartition(":")[0], event["at"])
    return found


def verdict(
    notes: Notes, events: list[dict[str, Any]], troubles: list[Trouble], patience: float
) -> list[str]:
    """What is wrong, by the logs of both sides; prints numbers. `patience` stretches times."""
    wrong = []
    what = Counter(line["what"] for lines in notes.values() for line in lines)
    failed = Counter(
        " ".join(line["why"].split()[:8])
        for lines in notes.values()
        for line in lines
        if line["what"] == "failed"
    )
    sessions = [hold for hold in sessions_of_servers(events) if hold.address != HERSELF]
    # At most from the question for the place to the answer of the release, at least from the moment
    # in which the place has its device to the question of the release. (A place without its device,
    # as of an exporter that is cut off, is no hold of a device.)
    loose = holds_of_clients(notes, "acquire", "released")
    firm = holds_of_clients(notes, "has", "release")
    by_device: dict[str, list[Hold]] = {}
    for hold in firm:
        by_device.setdefault(hold.device, []).append(hold)
    for session in sessions:
        own = [
            hold
            for hold in loose
            if (hold.device, hold.address) == (session.device, session.address)
            and hold.begin <= session.begin <= hold.end
        ]
        if not own:
            wrong.append(f"{session.address} got {session.device} without its place")
        for hold in by_device.get(session.device, []):
            if hold.address != session.address and hold.overlaps(session) > 0:
                seconds = hold.overlaps(session)
                wrong.append(f"{session.device} was with two for {seconds:.3f} s: {hold} {session}")
    for device, holds in by_device.items():
        for one, other in zip(
            sorted(holds, key=begin_of), sorted(holds, key=begin_of)[1:], strict=False
        ):
            if one.overlaps(other) > 0:
                wrong.append(f"{device} was held by two: {one} {other}")
    if what["THEFT"]:
        wrong.append(f"{what['THEFT']} devices were given to clients that did not hold them")
    print(f"reservations {what['reserved']}, places acquired {what['acquired']}")
    print(f"sessions at the servers {len(sessions)}, reads of 64 KiB compared {what['checked']}")
    print(f"taken back by labgrid's release {what['taken back']}")
    print(f"thefts tried {what['theft refused'] + what['theft unanswered']}, done {what['THEFT']}")
    print(f"rounds that trouble ended {sum(failed.values())}:")
    for why, count in failed.most_common(12):
        print(f"  {count:4} {why}")
    return wrong + verdict_of_troubles(troubles, sessions, patience)


def begin_of(hold: Hold) -> float:
    return hold.begin


def verdict_of_troubles(
    troubles: list[Trouble], sessions: list[Hold], patience: float
) -> list[str]:
    wrong = []
    print(
        "troubles, and seconds from an exporter's trouble's end until all its devices were there:"
    )
    for kind in sorted({each.kind for each in troubles}):
        these = [each for each in troubles if each.kind == kind]
        took = [each.healed - each.end for each in these if each.healed]
        text = f"median {statistics.median(took):.1f}, most {max(took):.1f}" if took else ""
        print(f"  {len(these):4} {kind:24} {text}")
        if took and max(took) > HEALING * patience:
            wrong.append(f"{kind}: healed after {max(took):.1f} s only")
        if kind not in ("client cut", "client delayed") and len(took) < len(these):
            wrong.append(f"{kind}: {len(these) - len(took)} never healed")
    freed = []
    for trouble in troubles:
        if trouble.kind.endswith("cut") and trouble.end - trouble.begin > PEER_TIMEOUT:
            place = "" if trouble.node[0] == "k" else f"{trouble.node}-"
            address = client_address(int(trouble.node[1:])) if trouble.node[0] == "k" else ""
            for session in sessions:
                if not session.begin <= trouble.begin <= session.end:
                    continue
                if session.address == address or (place and session.device.startswith(place)):
                    freed.append(session.end - trouble.begin)
    if freed:
        print(
            f"devices with a client behind a cut of more than 15 s: {len(freed)}, free after "
            f"median {statistics.median(freed):.1f} s, most {max(freed):.1f} s"
        )
        if max(freed) > PEER_TIMEOUT + LATE * patience:
            wrong.append(f"a device was free after {max(freed):.1f} s only")
    return wrong
