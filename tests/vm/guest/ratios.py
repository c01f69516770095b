#!/usr/bin/env python3
"""Compares servers: ratios.py OTHER ROUNDS < lines of "controller;server;load;seconds;bytes;cpu".

For each load and each server but OTHER: the medians of both in MB/s and in processor time for a
megabyte, and the median of the ratios of the rounds' speeds.
"""

import collections
import statistics
import sys


def main(other, rounds):
    speeds = collections.defaultdict(list)
    costs = collections.defaultdict(list)
    for line in sys.stdin:
        controller, by, load, seconds, size, cpu = line.strip().split(";")
        speeds[f"{controller} {load}", by].append(int(size) / float(seconds) / 1e6)
        costs[f"{controller} {load}", by].append(float(cpu) * 1e3 / (int(size) / 1e6))
    for (load, by), mine in speeds.items():
        others = speeds[load, other]
        if len(mine) != rounds or len(others) != rounds:
            sys.exit(f"{load}: {len(mine)} and {len(others)} of {rounds} rounds")
        if by == other:
            continue
        ratio = statistics.median(a / b for a, b in zip(mine, others))
        print(
            f"{load}: {by} {statistics.median(mine):.2f} MB/s, "
            f"{other} {statistics.median(others):.2f} MB/s, ratio {ratio:.2f}; "
            f"CPU {statistics.median(costs[load, by]):.1f} "
            f"and {statistics.median(costs[load, other]):.1f} ms a MB"
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
