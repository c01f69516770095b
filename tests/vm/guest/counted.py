#!/usr/bin/env python3
"""What a server did for a URB, from two outputs of counter.c.

  counted.py LABEL KERNEL_SYMBOLS MAPS BEFORE AFTER    a line of JSON for --tables
  counted.py --tables REFERENCE < lines                lines for people

A URB is a call of usb_submit_urb by the server. String instructions count once for each byte or
word that they move, so the functions that consist of one are told apart. A wait for a spin lock that
the other emulated processor holds is no work, and left out. The JSON has each of the kernel's
functions.
"""

import bisect
import collections
import json
import re
import subprocess
import sys

KERNEL = 1 << 63
SPIN = "native_queued_spin_lock_slowpath"
STRINGS = re.compile(r"_erms$|_orig$|^rep_|fast_string$|short_string$|^clear_page")


def runs(path):
    """Runs of each block by address and length, in stretches of the server."""
    found = collections.Counter()
    with open(path) as file:
        lost = next(file).split()
        if lost != ["lost", "0"]:
            sys.exit(f"{path}: {' '.join(lost)}: a stretch was longer than counter.c allows")
        for line in file:
            address, length, times = line.split()
            found[int(address, 16), int(length)] += int(times)
    return found


class Symbols:
    """Functions by address."""

    def __init__(self, pairs):
        self.pairs = sorted(pairs)
        self.addresses = [address for address, _ in self.pairs]

    def at(self, address):
        found = bisect.bisect_right(self.addresses, address)
        return self.pairs[found - 1][1] if found else "?"


def kernel_symbols(path):
    with open(path) as file:
        lines = (line.split() for line in file)
        return Symbols([(int(parts[0], 16), parts[2]) for parts in lines])


def program_symbols(path):
    """Functions of a program by the address in its file's image; none in a stripped program."""
    nm = subprocess.run(["nm", path], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^([0-9a-f]+) [tTwWV] (\S+)$", nm, re.M)
    return Symbols([(int(address, 16), name) for address, name in found])


def image_address(path, offset):
    """The address in the image of an offset in the file."""
    headers = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True)
    for line in headers.stdout.splitlines():
        parts = line.split()
        if parts[:1] == ["LOAD"]:
            at, address, size = int(parts[1], 16), int(parts[2], 16), int(parts[4], 16)
            if at <= offset < at + size:
                return address + offset - at
    return offset


class Outside:
    """Who owns an address outside of the kernel."""

    def __init__(self, maps):
        self.parts = []
        self.symbols = {}
        with open(maps) as file:
            for line in file:
                span, rights, offset, _, _, *path = line.split()
                if "x" in rights and path:
                    first, behind = (int(end, 16) for end in span.split("-"))
                    self.parts.append((first, behind, int(offset, 16), path[0]))

    def owner(self, address):
        """A library's file, or "libusb" and "own" for the C and the Rust of the program."""
        for first, behind, offset, path in self.parts:
            if first <= address < behind:
                name = path.rsplit("/", 1)[-1]
                if not path.startswith("/") or ".so" in name:
                    return name.split("-")[0].split(".so")[0].strip("[]")
                if path not in self.symbols:
                    moved = image_address(path, offset) - offset
                    self.symbols[path] = (program_symbols(path), moved)
                symbols, moved = self.symbols[path]
                function = symbols.at(address - first + offset + moved)
                return "own" if function.startswith(("_ZN", "_R", "?")) else "libusb"
        return "elsewhere"


def count(label, symbols, maps, before, after):
    functions = kernel_symbols(symbols)
    entries = {address: name for address, name in functions.pairs}
    outside = Outside(maps)
    done = runs(after)
    done.subtract(runs(before))
    kernel, users, calls, urbs = (
        collections.Counter(),
        collections.Counter(),
        collections.Counter(),
        0,
    )
    for (address, length), times in done.items():
        if address < KERNEL:
            users[outside.owner(address)] += length * times
            continue
        kernel[functions.at(address)] += length * times
        entry = entries.get(address, "")
        if entry == "usb_submit_urb":
            urbs += times
        elif entry.startswith("__x64_sys_"):
            calls[entry.removeprefix("__x64_sys_")] += times
    if not urbs:
        sys.exit(f"{label}: the server submitted no URB")
    spin = kernel.pop(SPIN, 0)
    strings = sum(times for name, times in kernel.items() if STRINGS.search(name))

    def a_urb(counter, least):
        return {n: round(t / urbs, 2) for n, t in counter.most_common() if t / urbs >= least}

    print(
        json.dumps(
            {
                "label": label,
                "urbs": urbs,
                "kernel": (sum(kernel.values()) - strings) / urbs,
                "strings": strings / urbs,
                "spin": spin / urbs,
                "outside": a_urb(users, 1),
                "calls": a_urb(calls, 0.01),
                "functions": a_urb(kernel, 1),
            }
        )
    )


def tables(reference):
    rows = [json.loads(line) for line in sys.stdin]
    totals = {row["label"]: row["kernel"] + sum(row["outside"].values()) for row in rows}
    for row in sorted(rows, key=lambda row: row["label"].rsplit(", ", 1)[0]):
        load, by = row["label"].rsplit(", ", 1)
        total = totals[row["label"]]
        shares = ", ".join(f"{name} {amount:.0f}" for name, amount in row["outside"].items())
        calls = ", ".join(f"{name} {times:.2f}" for name, times in row["calls"].items())
        print(
            f"{load}, {by}: {total:.0f} instructions a URB"
            f" ({total / totals[f'{load}, {reference}']:.2f} of {reference}):"
            f" kernel {row['kernel']:.0f}{', ' if shares else ''}{shares};"
            f" moved by string instructions {row['strings']:.0f};"
            f" {sum(row['calls'].values()):.2f} system calls{': ' if calls else ''}{calls}"
        )


if __name__ == "__main__":
    if sys.argv[1] == "--tables":
        tables(sys.argv[2])
    else:
        count(*sys.argv[1:])
