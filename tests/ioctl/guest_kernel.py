#!/usr/bin/env python3
"""In a guest: one program's view of Linux's vhost-net and of ringway cuse, which must be the same."""

import sys
from pathlib import Path

from net_lab import Guest, image, lab

STEPS = ["linux_rules", "linux_sharing", "linux_paths", "cuse_rules", "cuse_newer", "cuse_sharing", "cuse_frames",
         "cuse_session"]


def main():
    programs = [Path(word) for word in sys.argv[1:] if word != "-v"]
    try:
        with Guest("kernel.sh", programs, verbose="-v" in sys.argv, memory="512M") as guest:
            try:
                told = guest.run()
            except lab.LabError:
                print("\n".join(guest.lines[-30:]))
                raise
            missing = [step for step in STEPS if told.get(step) != "ok"]
            if missing:
                raise lab.LabError(f"not done: {missing}")
    except (lab.LabError, image.ImageError) as error:
        print(f"FAIL: {error}")
        return lab.status_of(error)
    print("ok   " + ", ".join(STEPS))
    return 0


sys.exit(lab.patient(main))
