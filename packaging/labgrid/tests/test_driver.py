"""The driver in a target of labgrid, with a stand-in for what needs the kernel's vhci_hcd."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lab import PROGRAMS, Lab, wait
from test_lab import in_service

STAND_IN = Path(__file__).parent / "stand_in.py"

ENVIRONMENT = """
targets:
  main:
    resources:
      RemotePlace:
        name: box
    drivers:
    - USBFerryDriver:
        provides: USBSerialPort
tools:
  usbferry: STAND_IN
"""

# A person's test of their board.
USE = """
def test_board(target, monkeypatch):
    driver = target.get_driver("USBFerryDriver", activate=False)
    serial = target.get_resource("USBSerialPort", wait_avail=False)
    assert serial.match["sys_name"] == "(not attached)"
    target.activate(driver)
    assert driver.get_path() == "9-1"
    assert driver.get_node() == "/dev/bus/usb/009/002"
    assert serial.match["@sys_name"] == "9-1" and "sys_name" not in serial.match
    open("attached", "w").close()
    input_ = open("go").read()
    target.deactivate(driver)
    assert serial.match["sys_name"] == "(not attached)" and "@sys_name" not in serial.match
"""


def pytest_of_a_person(lab: Lab) -> None:
    """Runs pytest with labgrid's plugin, as the person who holds the place."""
    (lab.folder / "env.yaml").write_text(ENVIRONMENT.replace("STAND_IN", str(STAND_IN)))
    (lab.folder / "test_board.py").write_text(USE)
    lab.start(
        "person",
        *(str(PROGRAMS / "pytest"), "--lg-env", "env.yaml", "-p", "no:cacheprovider"),
        "test_board.py",
        LG_HOSTNAME="127.0.0.2",
        LG_USERNAME="ann",
        STAND_IN_STATE=str(lab.folder / "attached.json"),
        STAND_IN_FROM="127.0.0.2",
    )


def test_activation_attaches_the_place_s_device_and_deactivation_detaches(lab: Lab) -> None:
    in_service(lab, lab.authorize())
    lab.person().acquire("box")
    subprocess.run(["mkfifo", "go"], cwd=lab.folder, check=True)
    pytest_of_a_person(lab)
    wait("the person's test has the device", (lab.folder / "attached").exists)
    assert "lent to 127.0.0.2" in lab.usbferry("status")
    (lab.folder / "go").write_text("on")
    wait("the person's test has ended", lambda: lab.running["person"].poll() is not None)
    assert lab.stop("person") == 0, lab.log("person")
    wait("the device is free", lambda: "lent to" not in lab.usbferry("status"))


def test_a_refusal_is_an_error_with_usbferry_s_words(lab: Lab) -> None:
    in_service(lab, '[[rule]]\nauthorize = true\non-attach = ["/bin/false"]\n')
    lab.person().acquire("box")
    pytest_of_a_person(lab)
    wait("the person's test has ended", lambda: lab.running["person"].poll() is not None)
    assert lab.stop("person") == 1
    assert "attach failed: usbferry: the server refuses: status 1" in lab.log("person")


def test_a_place_with_the_resource_needs_no_environment_at_a_client(lab: Lab) -> None:
    """Other drivers' commands make all resources of the place, ours among them."""
    in_service(lab)
    lab.person().acquire("box")
    told = lab.labgrid_client("-p", "box", "console", check=False)
    assert "unknown resource class" not in told
    assert "NetworkSerialPort" in told or "ConsoleProtocol" in told or "matching resource" in told


@pytest.mark.parametrize("module", ["labgrid", "labgrid.remote.exporter"])
def test_labgrid_alone_imports_this_package(module: str) -> None:
    code = f"import {module}, sys; print('labgrid_usbferry.driver' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_programs_without_labgrid_import_the_finder_only() -> None:
    code = "import sys; print(sorted(m for m in sys.modules if m.startswith(('labgrid', 'attr'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['labgrid_usbferry', 'labgrid_usbferry.autoload']\n"
