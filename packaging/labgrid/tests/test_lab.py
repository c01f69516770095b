"""The package beside labgrid's stock programs: coordinator, exporter and client, over loopback."""

from __future__ import annotations

import json

import grpc
import pytest
from lab import EXPORTER, Lab, wait
from usbip import Refused

LOOP = """
bench:
  loop:
    cls: USBFerryDevice
    socket: SOCKET
    match:
      id: '1209:0001'
"""

PATH = f"{EXPORTER}/bench/NetworkUSBFerryDevice/loop"


def in_service(lab: Lab, rules: str = "", devices: str = "loopback") -> None:
    """A device that labgrid knows, in the place "box"."""
    lab.start_server(devices, rules)
    lab.start_exporter(LOOP)
    wait("the device is at the coordinator", lambda: lab.devices() == {PATH: "1-1"})
    lab.person().make_place("box", f"{EXPORTER}/bench/*")


def refused(lab: Lab, source: str) -> str:
    """Asks for the device, which must be refused, and returns the hook's words in the log."""
    before = len(lab.log("usbferry"))
    with pytest.raises(Refused) as refusal:
        lab.attach("1-1", source)
    assert refusal.value.status == 1
    wait("the log has the hook's words", lambda: "on-attach:" in lab.log("usbferry")[before:])
    return lab.log("usbferry")[before:]


def acquires(lab: Lab, host: str) -> bool:
    """Whether a person at the machine gets the place."""
    try:
        lab.person(host).acquire("box")
    except grpc.RpcError:
        return False
    return True


def buffers_in_use(lab: Lab) -> int:
    """The bytes of buffers of the first session."""
    (session,) = json.loads(lab.usbferry("status", "--json"))["sessions"]
    return int(session["work"]["buffers"]["now"])


def test_a_device_appears_by_itself_and_leaves_with_its_server(lab: Lab) -> None:
    lab.start_exporter(LOOP)
    wait("the resource is known", lambda: PATH in lab.known())
    assert lab.devices() == {}
    lab.start_server("disk,loopback")
    wait("the device is there", lambda: lab.devices() == {PATH: "1-2"})
    told = lab.labgrid_client("-v", "resources")
    assert "'device': '1-2'" in told and f"'port': {lab.port}" in told and "True" in told
    lab.stop("usbferry")
    wait("the device has left", lambda: lab.devices() == {})
    lab.start_server("disk")
    wait("another device is no resource", lambda: "1-1" in lab.usbferry("status"))
    assert lab.devices() == {}
    lab.stop("usbferry")
    lab.start_server("loopback")
    wait("the device is back in another port", lambda: lab.devices() == {PATH: "1-1"})


def test_a_device_that_is_held_back_or_pulled_out_is_not_there(lab: Lab) -> None:
    in_service(lab, devices="loopback:fault=vanish@2")
    lab.usbferry("disconnect", "1-1", "--hold")
    wait("a device held back is not there", lambda: lab.devices() == {})
    lab.usbferry("release", "1-1")
    wait("the device is there again", lambda: lab.devices() == {PATH: "1-1"})
    lab.person().acquire("box")
    with lab.attach("1-1") as device:
        device.bulk_in(512)
        with pytest.raises(Exception):  # noqa: B017 (lost, or a URB without a device)
            device.bulk_in(512)
    wait("the device was pulled out", lambda: lab.devices() == {})
    lab.person().release("box")


def test_a_nickname_by_the_rules_is_what_clients_ask_for(lab: Lab) -> None:
    lab.start_server("loopback:count=2", '[[rule]]\nbusid = "1-2"\nname = "probe"\n')
    lab.start_exporter(LOOP.replace("id: '1209:0001'", "name: probe"))
    wait("the device is at the coordinator", lambda: lab.devices() == {PATH: "1-2"})
    assert "'device': 'probe'" in lab.labgrid_client("-v", "resources")


def test_of_two_devices_of_a_kind_the_serial_number_tells(lab: Lab) -> None:
    lab.start_server("loopback:count=2")
    lab.start_exporter(LOOP.replace("id: '1209:0001'", "serial: 05EED0000002"))
    wait("the device is at the coordinator", lambda: lab.devices() == {PATH: "1-2"})


def test_only_the_holder_gets_the_device_and_only_while_the_place_is_held(lab: Lab) -> None:
    in_service(lab, lab.authorize())
    assert "any client gets" not in lab.log("exporter")
    assert "nobody holds" in refused(lab, "127.0.0.2")
    lab.labgrid_client("-p", "box", "acquire", host="127.0.0.2")
    assert "held by 127.0.0.2/ann, not by 127.0.0.3" in refused(lab, "127.0.0.3")
    with lab.attach("1-1", "127.0.0.2") as device:
        device.check(65536)
        lab.labgrid_client("-p", "box", "release", host="127.0.0.2")
        device.await_end(10)
    assert "nobody holds" in refused(lab, "127.0.0.2")
    wait("the next person gets the place", lambda: acquires(lab, "127.0.0.3"))
    with lab.attach("1-1", "127.0.0.3") as device:
        device.check(65536)


def test_whom_the_holder_allows_gets_the_device(lab: Lab) -> None:
    in_service(lab, lab.authorize())
    lab.person("127.0.0.2").acquire("box")
    refused(lab, "127.0.0.3")
    lab.person("127.0.0.2").allow("box", "127.0.0.3/bob")
    lab.attach("1-1", "127.0.0.3").stream.close()


def test_a_client_over_ssh_is_trusted_only_when_told_and_while_the_place_is_held(lab: Lab) -> None:
    in_service(lab, lab.authorize("--trust-loopback"))
    assert "nobody holds" in refused(lab, "127.0.0.1")
    lab.person("elsewhere.invalid").acquire("box")
    lab.attach("1-1", "127.0.0.1").stream.close()
    lab.stop("usbferry")
    wait("the device has left", lambda: lab.devices() == {})
    lab.start_server("loopback", lab.authorize())
    wait("the device is there", lambda: lab.devices() == {PATH: "1-1"})
    assert "elsewhere.invalid has no address here" in refused(lab, "127.0.0.1")


def test_without_the_coordinator_a_client_keeps_its_device_and_no_other_gets_one(lab: Lab) -> None:
    in_service(lab, lab.authorize(), "loopback:count=2")
    lab.person().acquire("box")
    with lab.attach("1-1") as device:
        lab.stop("coordinator")
        with pytest.raises(Refused):
            lab.attach("1-2")
        why = "on-attach: unknown: the coordinator at"
        wait("the log has the reason", lambda: why in lab.log("usbferry"))
        device.check(65536)


def test_a_client_that_came_in_without_the_hook_is_sent_away_unless_it_holds(lab: Lab) -> None:
    in_service(lab)  # no hook: everybody may attach
    assert "1-1: any client gets the device" in lab.log("exporter")
    lab.person().acquire("box")
    with lab.attach("1-1") as device:
        device.check(65536)
        wait("the attachment is judged", lambda: "attach" in lab.log("usbferry"))
    lab.person().release("box")
    lab.attach("1-1").await_end(20)
    told = "is disconnected: nobody holds"
    wait("the log says why", lambda: told in lab.log("exporter"))


def test_a_coordinator_that_forgot_its_holders_ends_their_sessions(lab: Lab) -> None:
    in_service(lab, lab.authorize())
    lab.person().acquire("box")
    with lab.attach("1-1") as device:
        lab.stop("coordinator")
        wait("the exporter has ended", lambda: lab.running["exporter"].poll() is not None)
        assert lab.stop("exporter") == 100  # "start me again", for systemd
        device.check(65536)
        lab.start_coordinator()
        lab.start_exporter(LOOP)
        device.await_end(30)


def test_a_holder_keeps_the_device_over_a_restart_of_the_exporter(lab: Lab) -> None:
    in_service(lab, lab.authorize())
    lab.person().acquire("box")
    with lab.attach("1-1") as device:
        lab.stop("exporter")
        wait("the resource has left", lambda: PATH not in lab.known())
        lab.start_exporter(LOOP)
        # The coordinator gives the resource back to its place within 15 s.
        wait("the place has its resource", lambda: "should be replaced" in lab.log("coordinator"))
        device.check(65536)
        lab.person().release("box")
        device.await_end(10)


def test_a_client_of_a_place_that_was_released_without_the_exporter_is_sent_away_first(
    lab: Lab,
) -> None:
    in_service(lab, lab.authorize())
    lab.person("127.0.0.2").acquire("box")
    with lab.attach("1-1", "127.0.0.2") as device:
        lab.stop("exporter")
        wait("the resource has left", lambda: PATH not in lab.known())
        lab.person("127.0.0.2").release("box")
        device.check(65536)
        lab.start_exporter(LOOP)
        device.await_end(30)
    wait("the next person gets the place", lambda: acquires(lab, "127.0.0.3"))
    lab.attach("1-1", "127.0.0.3").stream.close()


def test_a_place_is_nobody_s_until_the_last_client_has_really_left(lab: Lab) -> None:
    in_service(lab, 'peer-timeout = "10m"\n' + lab.authorize())
    lab.person("127.0.0.2").acquire("box")
    with lab.attach("1-1", "127.0.0.2") as device:
        # A client that reads nothing can't be parted from in good order at once.
        device.ask(16 * 1024 * 1024)
        wait("the answer is on its way", lambda: buffers_in_use(lab))
        lab.person("127.0.0.2").release("box")
        assert not acquires(lab, "127.0.0.3")
        assert "127.0.0.2" in lab.usbferry("status")
    wait("the next person gets the place", lambda: acquires(lab, "127.0.0.3"))
