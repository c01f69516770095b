#!/usr/bin/env python3
"""Compares two servers: ratios.py SERVER OTHER ROUNDS < lines of "controller;server;load;seconds;bytes".

For each load the medians in MB/s, and the median of the ratios of the rounds.
"""

import collections
import statistics
import sys


def main(server, other, rounds):
    speeds = collections.defaultdict(list)
    for line in sys.stdin:
        controller, by, load, seconds, size = line.strip().split(";")
        speeds[f"{controller} {load}", by].append(int(size) / float(seconds) / 1e6)
    for load in dict.fromkeys(load for load, _ in speeds):
        mine, others = speeds[load, server], speeds[load, other]
        if len(mine) != rounds or len(others) != rounds:
            sys.exit(f"{load}: {len(mine)} and {len(others)} of {rounds} rounds")
        ratio = statistics.median(a / b for a, b in zip(mine, others))
        print(
            f"{load}: {server} {statistics.median(mine):.2f} MB/s, "
            f"{other} {statistics.median(others):.2f} MB/s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
