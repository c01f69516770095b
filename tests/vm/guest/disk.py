#!/usr/bin/env python3
"""Times reads and writes of a disk, past every cache, and checks the data.

  disk.py DEVICE IMAGE [PID...]         IMAGE is what is on it; it gets what is written here, too

Prints a line for each load: what was done, the seconds and bytes of one repetition (the median), and
the seconds of processor time that the processes took for it, their threads included.
"""

import glob
import mmap
import os
import statistics
import sys
import time

# Name, bytes of a block, number of blocks.
SIZES = (("4 KiB", 4096, 64), ("1 MiB", 1 << 20, 4))
REPETITIONS = 5


def buffer(size):
    """Memory that O_DIRECT takes: it begins with a page."""
    return mmap.mmap(-1, size)


def read(fd, image, size, count):
    """Reads blocks one after another; returns the seconds."""
    blocks = [buffer(size) for _ in range(count)]
    since = time.monotonic()
    for i, block in enumerate(blocks):
        if os.preadv(fd, [block], i * size) != size:
            sys.exit(f"a short read at {i * size}")
    elapsed = time.monotonic() - since
    for i, block in enumerate(blocks):
        if block[:] != image[i * size : (i + 1) * size]:
            sys.exit(f"other data than on the disk at {i * size}")
    return elapsed


def write(fd, image, size, count):
    data = buffer(size * count)
    data[:] = os.urandom(size * count)
    view = memoryview(data)
    since = time.monotonic()
    for at in range(0, size * count, size):
        if os.pwritev(fd, [view[at : at + size]], at) != size:
            sys.exit(f"a short write at {at}")
    os.fsync(fd)
    elapsed = time.monotonic() - since
    image[: size * count] = data[:]
    return elapsed


def account(pids):
    """Seconds run, seconds waited for a processor, and turns, of all threads of the processes."""
    sums = [0, 0, 0]
    for path in (path for pid in pids for path in glob.glob(f"/proc/{pid}/task/*/schedstat")):
        with open(path) as file:
            sums = [a + int(b) for a, b in zip(sums, file.read().split())]
    return [sums[0] / 1e9, sums[1] / 1e9, sums[2]]


def main(device, path, *pids):
    with open(path, "rb") as file:
        image = bytearray(file.read())
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    for name, size, count in SIZES:
        for what, run in (("read", read), ("write", write)):
            before = account(pids)[0]
            seconds = statistics.median(run(fd, image, size, count) for _ in range(REPETITIONS))
            cpu = (account(pids)[0] - before) / REPETITIONS
            print(f"{what} {name};{seconds:.4f};{size * count};{cpu:.4f}")
        # The written data, in a single piece.
        read(fd, image, size * count, 1)
    with open(path, "wb") as file:
        file.write(image)


if __name__ == "__main__":
    main(*sys.argv[1:])
