#!/usr/bin/env python3
"""Unmodified QEMU, with libringway-vhost.so preloaded, uses it as vhost-net over its own tap: the guest pings, and 100 MB
go there and back with right checksums. Exit status 77 where there are no namespaces or taps."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "net"))

import run as net  # noqa: E402
from run import image, lab  # noqa: E402


class PreloadLab(net.Lab):
    """The lab of tests/net, with a tap of QEMU's own instead of a back-end."""

    def check_backend(self):
        pass

    def add_tap(self, name):
        self.space.ip("tuntap", "add", name, "mode", "tap", "vnet_hdr")

    def boot_preloaded(self, device, script="pass.sh", tap="tap0", extra=()):
        kvm = lab.kvm_works(self.qemu)
        processor = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg", "-cpu", "max,la57=off"]
        command = self.space.wrap(
            "env", f"LD_PRELOAD={self.options.library}", "RINGWAY_VHOST=log=info", self.qemu, "-nodefaults",
            "-no-user-config", "-display", "none", *processor, "-m", "512M", "-machine", "q35", "-smp", "2",
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console", "-no-reboot",
            "-kernel", self.image.vmlinux, "-initrd", self.initramfs(script), "-append",
            "console=ttyS0 loglevel=5 nokaslr mitigations=off tsc=reliable no_timer_check panic=-1 "
            f"lab.host={net.HOST} lab.guest={net.GUEST}",
            "-netdev", f"tap,id=net0,ifname={tap},script=no,downscript=no,vhost=on,vhostforce=on",
            "-device", f"virtio-net-pci,netdev=net0,mac={net.MACS[0]}{device}", *extra)
        self.guests.append(net.Guest(self, command))
        return self.guests[-1]


def one(title, options, device=""):
    room = PreloadLab(options)
    try:
        room.add_tap("tap0")
        room.address_tap()
        files = net.Files(room)
        room.boot_preloaded(device).follow(offer=files.offer, accept=files.accept, received=files.received)
    except (lab.LabError, image.ImageError) as error:
        print(f"FAIL {title}: {error}")
        print("\n".join(f"  {guest.name} | {line}" for guest in room.guests for line in guest.last[-30:]))
        return 1
    finally:
        room.close()
    print(f"ok   {title}", flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the guest's console")
    options = parser.parse_args()
    options.keep = False
    if not net.may_make_networks():
        return 77
    net.FILE_BYTES = 100 << 20
    failures = one("a guest over QEMU's tap, all offloads", options, ",disable-legacy=on")
    net.FILE_BYTES = 4 << 20  # by frames of the usual length
    failures += one("a legacy driver, whose headers have 10 bytes", options,
                    ",disable-modern=on,disable-legacy=off,mrg_rxbuf=off")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
