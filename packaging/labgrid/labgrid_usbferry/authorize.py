"""usbferry's hook: may this client have this device now, by labgrid?

    [[rule]]
    name = "board"
    authorize = true
    on-attach = ["/opt/labgrid/bin/usbferry-labgrid-authorize", "--coordinator", "lab"]

Exit status 0 for yes. Every doubt is a no, with the reason on stdout for usbferry's log: the
coordinator does not answer, the exporter is not there, the holder's host has no address here. A
device that should be in one pair of hands only is better without a client than with two.
"""

from __future__ import annotations

import argparse
import os
import sys
from socket import gethostname

from .coordinator import Unreachable, Verdict, judge, snapshot


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="May a client have a device, by labgrid?")
    parser.add_argument(
        "-c",
        "--coordinator",
        metavar="HOST[:PORT]",
        default=os.environ.get("LG_COORDINATOR", "127.0.0.1:20408"),
        help="labgrid's coordinator",
    )
    parser.add_argument(
        "-n",
        "--exporter",
        metavar="NAME",
        default=gethostname(),
        help="the name of labgrid-exporter on this machine (default: the machine's name)",
    )
    parser.add_argument(
        "--trust-loopback",
        action="store_true",
        help="permit clients of this machine, as over ssh, whenever anybody holds the device",
    )
    return parser


def main() -> None:
    """Answers by the exit status."""
    args = arguments().parse_args()
    busid = os.environ.get("USBFERRY_BUSID", "")
    client = os.environ.get("USBFERRY_CLIENT", "")
    if not busid or not client:
        sys.exit("USBFERRY_BUSID or USBFERRY_CLIENT is missing: this is a program for on-attach")
    try:
        verdict, why = judge(
            snapshot(args.coordinator),
            args.exporter,
            busid,
            client,
            trust_loopback=args.trust_loopback,
        )
    except (Unreachable, ValueError) as error:
        verdict, why = Verdict.UNKNOWN, str(error)
    print(f"{verdict.name.lower()}: {why}")
    sys.stdout.flush()
    # Threads of gRPC have nothing to finish.
    os._exit(verdict.value)


if __name__ == "__main__":
    main()
