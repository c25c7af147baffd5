#!/usr/bin/env python3
"""Unmodified QEMU in a guest, on the device that `ringway cuse` makes there, and on Linux's own for comparison: the inner
guest pings the outer one, and fetches a file, over a tap of QEMU's own."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from net_lab import Guest, archive, image, lab

FIRMWARE = {"bios-256k.bin": "/usr/share/seabios", "kvmvapic.bin": "/usr/share/qemu", "pvh.bin": "/usr/share/qemu",
            "linuxboot_dma.bin": "/usr/share/qemu"}


def run(ringway, folder):
    built = image.build()
    inner = archive(built, "ping.sh")
    (folder / "inner").write_bytes(built.initramfs.read_bytes() + inner.finish())
    files = {"nested/vmlinux": built.vmlinux, "nested/initramfs": folder / "inner"}
    files |= {f"firmware/{name}": Path(place) / name for name, place in FIRMWARE.items()}
    accelerator = Path("/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so")
    files[str(accelerator)] = accelerator
    qemu = Path(shutil.which(os.environ.get("QEMU", "qemu-system-x86_64")))
    with Guest("qemu.sh", [ringway, qemu], verbose="-v" in sys.argv, memory="1G", files=files) as guest:
        try:
            told = guest.run(seconds=600)
        except lab.LabError:
            print("\n".join(guest.lines[-30:]))
            raise
        if (told.get("cuse"), told.get("linux")) != ("ok", "ok"):
            raise lab.LabError("an inner machine was not run")


def main():
    ringway = next(Path(word) for word in sys.argv[1:] if word != "-v")
    with tempfile.TemporaryDirectory(prefix="ringway-nested-") as folder:
        try:
            run(ringway, Path(folder))
        except (lab.LabError, image.ImageError) as error:
            print(f"FAIL: {error}")
            return lab.status_of(error)
    print("ok   the inner guest pinged and fetched through ringway cuse, and through vhost_net")
    return 0


sys.exit(lab.patient(main))
