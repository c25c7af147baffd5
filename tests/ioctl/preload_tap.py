#!/usr/bin/env python3
"""Unmodified QEMU, with libringway-vhost.so preloaded, uses it as vhost-net over its own tap: the guest pings, and 100 MB
go there and back with right checksums. Exit status 77 where there are no namespaces or taps."""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "net"))

import run as net  # noqa: E402
from net_lab import served_threads  # noqa: E402
from run import image, lab  # noqa: E402


class PreloadLab(net.Lab):
    """The lab of tests/net, with a tap of QEMU's own instead of a back-end."""

    def check_backend(self):
        pass

    def add_tap(self, name):
        self.space.ip("tuntap", "add", name, "mode", "tap", "vnet_hdr")

    def boot_preloaded(self, device, script="pass.sh", tap="tap0", extra=()):
        machine = lab.bare_machine(self.qemu, self.image.vmlinux, self.initramfs(script),
                                   f"lab.host={net.HOST} lab.guest={net.GUEST}")
        command = self.space.wrap(
            "env", f"LD_PRELOAD={self.options.library}", "RINGWAY_VHOST=log=info", *machine, "-no-reboot",
            "-netdev", f"tap,id=net0,ifname={tap},script=no,downscript=no,vhost=on,vhostforce=on",
            "-device", f"virtio-net-pci,netdev=net0,mac={net.MACS[0]}{device}", *extra)
        self.guests.append(net.Guest(self, command))
        return self.guests[-1]


def run(title, options, act):
    """Does `act` in a lab of its own. 1 if it failed, else 0."""
    return lab.patient(attempt, title, options, act)


def attempt(title, options, act):
    started = time.monotonic()
    one = PreloadLab(options)
    try:
        act(one)
    except (lab.LabError, image.ImageError) as error:
        print(f"FAIL {title}: {error}")
        print("\n".join(f"  {guest.name} | {line}" for guest in one.guests for line in guest.last[-30:]))
        return lab.status_of(error)
    finally:
        one.close()
    print(f"ok   {title} ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


def main(description, tests):
    """The exit status of `tests`, which is called with the options and says how many failed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("library", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the guest's console")
    options = parser.parse_args()
    options.keep = False
    if not net.may_make_networks():
        return 77
    return 1 if tests(options) else 0


def transfer(device, size):
    def act(one):
        net.FILE_BYTES = size
        one.add_tap("tap0")
        one.address_tap()
        files = net.Files(one)
        guest = one.boot_preloaded(device)

        def offer():
            if not served_threads(guest.machine.pid):
                raise lab.LabError("the guest is on a vhost-net that is not ours")
            return files.offer()

        guest.follow(offer=offer, accept=files.accept, received=files.received)
    return act


def transfers(options):
    # The headers of a legacy driver have 10 bytes, and its frames are of the usual length.
    return (run("a guest over QEMU's tap, all offloads", options, transfer(",disable-legacy=on", 100 << 20)) +
            run("a legacy driver", options, transfer(",disable-modern=on,disable-legacy=off,mrg_rxbuf=off", 4 << 20)))


if __name__ == "__main__":
    sys.exit(main(__doc__, transfers))
