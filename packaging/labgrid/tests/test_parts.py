"""Parts of the package alone."""

from __future__ import annotations

import pytest

from labgrid_usbferry.coordinator import Place, Snapshot, Verdict, judge
from labgrid_usbferry.desk import Desk, DeskError, Export, State
from labgrid_usbferry.resource import USBFerryDevice, USBFerryManager
from labgrid_usbferry.warden import Exporter

PATH = "desk/bench/NetworkUSBFerryDevice/loop"


def export(busid: str, **facts: object) -> Export:
    known = {"name": None, "vid": "0781", "pid": "5567", "serial": None, "usable": True}
    return Export(**{"busid": busid, "client": None, "authorize": True} | known | facts)  # type: ignore[arg-type]


def resources(*matches: dict[str, str]) -> list[USBFerryDevice]:
    """Resources of a manager of their own."""
    USBFerryManager.instances.pop(USBFerryManager, None)
    return [USBFerryDevice(None, None, match=each, socket="/nowhere") for each in matches]  # type: ignore[call-arg, arg-type]


def at_server(made: list[USBFerryDevice], *exports: Export) -> list[str | None]:
    """Has the resources see these devices, and returns what they got."""
    made[0].watcher.state = State(3240, exports)
    for each in made:
        each.poll()
    return [each.busid for each in made]


def test_two_resources_never_have_the_same_device() -> None:
    made = resources({"id": "0781:5567"}, {"id": "0781:5567"})
    assert at_server(made, export("1-1")) == ["1-1", None]
    assert at_server(made, export("1-2"), export("1-1")) == ["1-1", "1-2"]
    assert at_server(made, export("1-2")) == [None, "1-2"]
    assert [each.avail for each in made] == [False, True]


def test_all_keys_of_a_match_must_fit() -> None:
    made = resources({"id": "0781:556A", "serial": "42"}, {"name": "stick"}, {"busid": "1-3"})
    devices = [export("1-1", serial="42"), export("1-2", pid="556a"), export("1-3", vid=None)]
    assert at_server(made, *devices) == [None, None, "1-3"]
    devices = [export("1-1", pid="556a", serial="42"), export("1-2", name="stick")]
    assert at_server(made, *devices) == ["1-1", "1-2", None]


def test_a_device_that_is_not_usable_is_not_there() -> None:
    made = resources({"busid": "1-1"})
    assert at_server(made, export("1-1", usable=False)) == [None]


def test_clients_ask_by_a_nickname_only_if_the_nickname_is_one_device_s() -> None:
    made = resources({"busid": "1-1"})
    at_server(made, export("1-1", name="stick"), export("1-2"))
    assert made[0].device == "stick"
    at_server(made, export("1-1", name="stick"), export("1-2", name="stick"))
    assert made[0].device == "1-1"


def test_a_serial_number_that_yaml_reads_as_a_number_is_text() -> None:
    (made,) = resources({"serial": 42})  # type: ignore[dict-item]
    assert made.matches(export("1-1", serial="42"))


@pytest.mark.parametrize("match", [{}, {"vendor": "0781"}])
def test_a_match_that_can_not_be_meant_is_refused(match: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="busid, id, name, serial"):
        resources(match)


def test_a_server_that_is_not_there_is_an_error_with_the_path() -> None:
    with pytest.raises(DeskError, match="/nowhere"):
        Desk("/nowhere").status()


HELD = Place("box", "192.0.2.7/ann", frozenset({PATH}), frozenset({"192.0.2.9/bob"}))


@pytest.mark.parametrize(
    ("places", "client", "expected"),
    [
        ([HELD], "192.0.2.7", Verdict.PERMITTED),
        ([HELD], "192.0.2.7:40112", Verdict.PERMITTED),
        ([HELD], "[::ffff:192.0.2.7]:40112", Verdict.PERMITTED),
        ([HELD], "::ffff:192.0.2.7", Verdict.PERMITTED),
        ([HELD], "192.0.2.9", Verdict.PERMITTED),
        ([HELD], "192.0.2.8", Verdict.DENIED),
        ([HELD], "fe80::1%eth0", Verdict.DENIED),
        ([Place("box", "", frozenset())], "192.0.2.7", Verdict.DENIED),
        ([Place("other", "192.0.2.7/ann", frozenset({"desk/a/b/c"}))], "192.0.2.7", Verdict.DENIED),
        ([Place("box", "no.invalid/ann", frozenset({PATH}))], "192.0.2.7", Verdict.UNRESOLVED),
        ([Place("box", "no.invalid/ann", frozenset({PATH}))], "127.0.0.1", Verdict.UNRESOLVED),
    ],
)
def test_the_holder_s_address_decides(places: list[Place], client: str, expected: Verdict) -> None:
    now = Snapshot(places, {PATH: "1-1", "elsewhere/bench/NetworkUSBFerryDevice/loop": "1-1"})
    assert judge(now, "desk", "1-1", client)[0] is expected


def test_a_device_that_is_not_in_labgrid_is_nobody_s() -> None:
    now = Snapshot([HELD], {PATH: "1-1"})
    assert judge(now, "desk", "1-2", "192.0.2.7")[0] is Verdict.UNKNOWN
    assert judge(now, "elsewhere", "1-1", "192.0.2.7")[0] is Verdict.UNKNOWN


def test_loopback_is_trusted_only_when_asked_for_and_held() -> None:
    now = Snapshot([HELD], {PATH: "1-1"})
    assert judge(now, "desk", "1-1", "::1")[0] is Verdict.DENIED
    assert judge(now, "desk", "1-1", "::1", trust_loopback=True)[0] is Verdict.PERMITTED
    free = Snapshot([], {PATH: "1-1"})
    assert judge(free, "desk", "1-1", "::1", trust_loopback=True)[0] is Verdict.DENIED


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["-c", "lab:1", "--name=desk", "x.yaml"], Exporter("desk", "lab:1")),
        (["--isolated", "-n", "desk", "-d", "x.yaml"], Exporter("desk", "here:2")),
        (["--coordinator", "lab", "--hostname", "h", "-ndesk", "x"], Exporter("desk", "lab")),
    ],
)
def test_the_exporter_s_command_line_is_read_as_labgrid_reads_it(
    line: list[str], expected: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LG_COORDINATOR", "here:2")
    assert Exporter.by_command_line(line) == expected
