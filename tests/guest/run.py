#!/usr/bin/env python3
"""Runs scenarios with a real guest. Exit status 0 when all pass, 1 when one fails, 77 when the only one was skipped."""

import argparse
import signal
import sys
import time
from pathlib import Path

from image import ImageError
from lab import BACKENDS, Lab, LabError, Skipped, patient, status_of
from scenarios import SCENARIOS


def arguments():
    parser = argparse.ArgumentParser(description="Boots Debian's kernel in QEMU on a disk that a back-end serves.",
                                     epilog="QEMU and RINGWAY in the environment name the two programs.")
    parser.add_argument("scenario", nargs="*", choices=[[], *SCENARIOS], help="default: all")
    parser.add_argument("--list", action="store_true", help="print the scenarios and what they show")
    parser.add_argument("--names", action="store_true", help="print the scenarios' names only")
    parser.add_argument("--backend", choices=BACKENDS, default="ringway", help="qsd: qemu-storage-daemon, for reference")
    parser.add_argument("--program", type=Path, help="the ringway program (default: $RINGWAY, build/release/ringway)")
    parser.add_argument("--qemu", help="the QEMU program (default: $QEMU, qemu-system-x86_64)")
    parser.add_argument("--serve", action="append", default=[], metavar="OPTION", help="one more option for `ringway serve`")
    parser.add_argument("--device", action="append", default=[], metavar="OPTION", help="one more for QEMU's device: packed=on")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the guest's console")
    parser.add_argument("--keep", action="store_true", help="keep the disk, sockets and logs of the run")
    return parser.parse_args()


def run(name, options):
    """Returns 0, 1, 77 or STUCK."""
    started = time.monotonic()
    show = (lambda line: print(f"  {line}", flush=True)) if options.verbose else (lambda line: None)
    lab = None
    try:
        with Lab(options.backend, options.program, options.qemu, options.serve, options.device,
                 options.keep, show) as lab:
            try:
                SCENARIOS[name](lab)
            except (LabError, ImageError) as error:
                print(f"FAIL {name}: {error}")
                print("".join(f"  {line}\n" for line in lab.tail()), end="")
                return status_of(error)
    except Skipped as reason:
        print(f"skip {name}: {reason}")
        return 77
    except (LabError, ImageError) as error:
        print(f"FAIL {name}: {error}")
        return 1
    print(f"ok   {name} ({time.monotonic() - started:.1f} s): {SCENARIOS[name].__doc__}", flush=True)
    return 0


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.list or options.names:
        for name, function in SCENARIOS.items():
            print(name if options.names else f"{name:14} {function.__doc__}")
        return 0
    results = [patient(run, name, options) for name in options.scenario or SCENARIOS]
    return 1 if 1 in results else 77 if results == [77] else 0


if __name__ == "__main__":
    sys.exit(main())
