#!/usr/bin/env python3
"""Unmodified QEMU, with libringway-vhost.so preloaded, uses it as vhost-net: the guest's frames come back."""

import os
import sys
from pathlib import Path

from net_lab import Guest, image, lab

FRAMES = 3000


def tap_works():
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        print(f"skip: /dev/net/tun: {error.strerror}")
        return False
    return True


def one(title, library, frames, machine=(), append="", words=""):
    name = f"rw{os.getpid()}"
    options = ["-netdev", f"tap,id=net,ifname={name},script=no,downscript=no,vhost=on,vhostforce=on",
               *machine, "-device", "virtio-net-pci,netdev=net" + append]
    environment = {"LD_PRELOAD": str(library), "RINGWAY_VHOST": "net=loopback,log=info"}
    with Guest("frames.sh", [frames], append=f"lab.frames={FRAMES} {words}", options=options, environment=environment,
               verbose="-v" in sys.argv) as guest:
        try:
            told = guest.run()
        except lab.LabError:
            print("\n".join(guest.lines[-30:]))
            raise
    # vhost=on would have failed without a device; QEMU's own path would have sent the frames to the tap.
    if told.get("frames") != str(FRAMES):
        raise lab.LabError(f"{told.get('frames')} frames came back of {FRAMES}")
    if int(told["received"]) < FRAMES:
        raise lab.LabError(f"the interface has counted {told['received']} received frames")
    print(f"ok   {title}: {FRAMES} frames came back")


def main():
    library, frames = map(Path, [word for word in sys.argv[1:] if word != "-v"])
    if not tap_works():
        return 77
    try:
        one("split rings, merged buffers", library, frames)
        one("without merged buffers, shared memory", library, frames, append=",mrg_rxbuf=off",
            machine=lab.shared_memory("256M"))
        # Address Translation Service, by which a device is told what is unmapped, works behind a root port only.
        one("behind an IOMMU", library, frames, words="intel_iommu=on", machine=[
            "-device", "intel-iommu,device-iotlb=on,intremap=off",
            "-device", "pcie-root-port,id=rootport,chassis=1"],
            append=",iommu_platform=on,ats=on,disable-legacy=on,bus=rootport")
    except (lab.LabError, image.ImageError) as error:
        print(f"FAIL: {error}")
        return lab.status_of(error)
    return 0


sys.exit(lab.patient(main))
