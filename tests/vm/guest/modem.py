#!/usr/bin/env python3
"""The modem lines and the line settings of a serial port: modem.py TTY

QEMU's port has CTS, DSR and CD on. Says what they are, and exits 1 if they are not, or a call fails.
"""

import fcntl
import os
import struct
import sys
import termios

LINES = {
    "CTS": termios.TIOCM_CTS,
    "DSR": termios.TIOCM_DSR,
    "CD": termios.TIOCM_CAR,
    "DTR": termios.TIOCM_DTR,
    "RTS": termios.TIOCM_RTS,
}


def lines(fd):
    bits = struct.unpack("I", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))[0]
    return {name for name, bit in LINES.items() if bits & bit}


def main(path):
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    both = struct.pack("I", termios.TIOCM_DTR | termios.TIOCM_RTS)
    for request, wanted in (
        (termios.TIOCMBIS, {"CTS", "DSR", "CD", "DTR", "RTS"}),
        (termios.TIOCMBIC, {"CTS", "DSR", "CD"}),
    ):
        fcntl.ioctl(fd, request, both)
        if lines(fd) != wanted:
            sys.exit(f"modem lines {sorted(lines(fd))}, not {sorted(wanted)}")
    for speed in (termios.B1200, termios.B9600, termios.B921600):
        attributes = termios.tcgetattr(fd)
        attributes[4] = attributes[5] = speed
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
        if termios.tcgetattr(fd)[4] != speed:
            sys.exit("the speed is not what was set")
    termios.tcsendbreak(fd, 0)
    print("CTS, DSR and CD are on, DTR and RTS go on and off, three speeds, a break")


if __name__ == "__main__":
    main(sys.argv[1])
