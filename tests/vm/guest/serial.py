"""A terminal on the simulated serial adapter: what is set is read back, what is written comes back,
and DTR, RTS and a break are heard as DSR, carrier and a break. With `hold` it waits for a hang-up.

  serial.py TTY [hold]
"""

import array
import errno
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import termios
import time

DEADLINE = 30

tty = sys.argv[1]
line = os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def setting(*words):
    command = ["stty", "-F", tty, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def lines():
    bits = array.array("i", [0])
    fcntl.ioctl(line, termios.TIOCMGET, bits)
    return bits[0] & (termios.TIOCM_DSR | termios.TIOCM_CAR)


def breaks():
    counters = bytearray(80)
    fcntl.ioctl(line, termios.TIOCGICOUNT, counters)
    # cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, buf_overrun.
    return struct.unpack_from("11i", counters)[9]


def wait(what, get, wanted):
    end = time.monotonic() + DEADLINE
    while (seen := get()) != wanted:
        if time.monotonic() > end:
            sys.exit(f"{what}: {seen} and not {wanted}")
        time.sleep(0.01)


def drive(clear, change):
    fcntl.ioctl(line, termios.TIOCMBIC if clear else termios.TIOCMBIS, struct.pack("i", change))


def echo(data, in_front=b""):
    """Writes all of it, and reads at the same time until it is back, behind what is in front."""
    sent, heard = 0, bytearray()
    wanted = in_front + data
    while len(heard) < len(wanted):
        wants = [line] if sent < len(data) else []
        readable, writable, _ = select.select([line], wants, [], DEADLINE)
        if readable:
            heard += os.read(line, 65536)
        if writable:
            sent += os.write(line, data[sent : sent + 4096])
        if not readable and not writable:
            sys.exit(f"{len(heard)} of {len(wanted)} bytes came back, {sent} were taken")
    if heard != wanted:
        pairs = zip(heard + b"?", wanted + b"!")
        place = next(place for place, (was, right) in enumerate(pairs) if was != right)
        was, right = heard[place : place + 8].hex(), wanted[place : place + 8].hex()
        sys.exit(f"byte {place} of {len(wanted)}, {len(heard)} heard: {was} and not {right}")


def main():
    # Without CLOCAL carrier off is a hang-up.
    setting("raw", "-echo", "clocal", "115200")
    dsr, carrier = termios.TIOCM_DSR, termios.TIOCM_CAR
    wait("both lines on", lines, dsr | carrier)
    for words in [
        ("9600", "cs8", "-parenb", "-cstopb"),
        ("38400", "cs7", "parenb", "cstopb"),
        ("115200", "cs8", "-parenb"),
    ]:
        setting(*words)
        said = setting("-a").replace(";", " ").split()
        for word in words:
            if word not in said:
                sys.exit(f"stty says no {word}: {said}")
    echo(b"AT\r\n")
    for length in (1, 64, 511, 512, 513, 4096):
        echo(random.randbytes(length))
    echo(random.randbytes(1 << 20))
    drive(True, termios.TIOCM_DTR)
    wait("DTR off", lines, carrier)
    drive(True, termios.TIOCM_RTS)
    wait("RTS off", lines, 0)
    drive(False, termios.TIOCM_DTR)
    wait("DTR on", lines, dsr)
    drive(False, termios.TIOCM_RTS)
    wait("RTS on", lines, dsr | carrier)
    before = breaks()
    termios.tcsendbreak(line, 0)
    wait("a break", breaks, before + 1)
    # In raw mode a break is a zero in front of the next data.
    echo(b"still there", in_front=b"\0")


def hold():
    setting("raw", "-echo", "-clocal")
    print("holding", flush=True)
    select.select([line], [], [])
    try:
        heard = os.read(line, 1)
    except OSError as error:
        heard = b"" if error.errno == errno.EIO else error
    if heard:
        sys.exit(f"{heard} and no hang-up")


hold() if sys.argv[2:] == ["hold"] else main()
