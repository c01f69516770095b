#!/usr/bin/env python3
"""Reads a disk from its beginning to its end, again and again, until a read fails.

  reads.py DEVICE

Past every cache, and by one descriptor: whenever the disk goes, it is a read that says so, never an
open. Says "reading" after the first megabyte, then the name of the error.
"""

import errno
import mmap
import os
import sys

LENGTH = 1 << 20


def main(device):
    # O_DIRECT wants memory that begins with a page.
    block = mmap.mmap(-1, LENGTH)
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    at, said = 0, False
    try:
        while True:
            at = at + LENGTH if os.preadv(fd, [block], at) else 0
            if not said:
                print("reading", flush=True)
                said = True
    except OSError as error:
        print(errno.errorcode[error.errno])


if __name__ == "__main__":
    main(*sys.argv[1:])
