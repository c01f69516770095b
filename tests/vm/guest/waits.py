#!/usr/bin/env python3
"""Where the time of a URB goes when blocks of a disk move through a server.

  waits.py DISK BLOCKS LABEL SERVER_PID...    a line of JSON for each load
  waits.py --table < lines                    lines for people: medians

The kernel counts for each thread how long the thread has run, how long the thread has waited for a
processor, and how often the thread has got a processor (/proc/PID/task/TID/schedstat). The client's
threads are vhci's two, the stick's driver and this program. The rest of a URB's time is of the
device, of interrupts, and of nobody; the rest is smaller where client and server run at once.
"""

import collections
import glob
import json
import os
import statistics
import sys
import time

import disk

SIZE = 4096
# A storage client's command, data and status.
URBS_OF_A_BLOCK = 3


def threads_named(*names):
    """The processes of the kernel's threads with these names."""
    found = []
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            with open(path) as file:
                if file.read().strip() in names:
                    found.append(path.split("/")[2])
        except FileNotFoundError:
            pass  # The thread has ended meanwhile.
    return found


def measure(device, blocks, label, server):
    client = [*threads_named("vhci_rx", "vhci_tx", "usb-storage"), str(os.getpid())]
    groups = {"server": server, "client": client}
    image = bytearray(SIZE * blocks)
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    data = disk.buffer(len(image))
    os.preadv(fd, [data], 0)
    image[:] = data[:]
    urbs = blocks * URBS_OF_A_BLOCK
    for load, move in (("read", disk.read), ("write", disk.write)):
        before = {who: disk.account(pids) for who, pids in groups.items()}
        since = time.monotonic()
        move(fd, image, SIZE, blocks)
        line = {"load": load, "by": label, "all": (time.monotonic() - since) / urbs}
        for who, pids in groups.items():
            counts = (now - then for now, then in zip(disk.account(pids), before[who]))
            names = (f"{who} runs", f"{who} waits", f"{who} turns")
            line.update(zip(names, (count / urbs for count in counts)))
        print(json.dumps(line))


def table():
    runs = collections.defaultdict(list)
    for text in sys.stdin:
        line = json.loads(text)
        runs[line.pop("load"), line.pop("by")].append(line)
    for (load, by), lines in runs.items():
        middle = {name: statistics.median(line[name] for line in lines) for name in lines[0]}
        micros = {name: value * 1e6 for name, value in middle.items()}
        print(
            f"{load}, {by}: {micros['all']:.0f} us a URB; the server runs "
            f"{micros['server runs']:.0f} and waits {micros['server waits']:.0f} for a processor, "
            f"in {middle['server turns']:.2f} turns; the client {micros['client runs']:.0f} and "
            f"{micros['client waits']:.0f}, {middle['client turns']:.2f}"
        )


if __name__ == "__main__":
    if sys.argv[1] == "--table":
        table()
    else:
        measure(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
