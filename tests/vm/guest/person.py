#!/usr/bin/env python3
"""A person with labgrid: makes the place box of the exporter's device, acquires the place, and attaches the
device by USBFerryDriver. Says "attached" with the device's name in sysfs, and ends when the device has gone.

  person.py ENVIRONMENT                 with LG_COORDINATOR, LG_HOSTNAME and LG_USERNAME, as labgrid-client
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "packaging/labgrid/tests"))

import grpc
from lab import Person
from labgrid import Environment
from look import look

RESOURCE = "desk/bench/NetworkUSBFerryDevice/stick"


def is_there(coordinator):
    try:
        _, resources = look(coordinator)
    except grpc.RpcError:
        return False
    return resources.get(RESOURCE, {}).get("avail")


def main(environment):
    coordinator = os.environ["LG_COORDINATOR"]
    while not is_there(coordinator):
        time.sleep(0.5)
    person = Person(coordinator, f"{os.environ['LG_HOSTNAME']}/{os.environ['LG_USERNAME']}")
    person.make_place("box", "desk/bench/*")
    person.acquire("box")
    target = Environment(environment).get_target("main")
    driver = target.get_driver("USBFerryDriver")
    print("attached", driver.get_path(), flush=True)
    while pathlib.Path("/sys/bus/usb/devices", driver.get_path()).exists():
        time.sleep(0.2)
    target.deactivate(driver)


main(*sys.argv[1:])
