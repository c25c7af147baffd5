#!/usr/bin/env python3
"""A guest moves from one unmodified QEMU to another and back, both with libringway-vhost.so preloaded as their vhost-net: with
a file unread in its socket, whose pages only the device has written, and in the middle of a transfer. All that was received
must be right afterwards. Exit status 77 where there are no namespaces or taps."""

import sys

from preload_tap import lab, main, net, run


class PreloadSite(net.Site):
    """A host whose QEMU is its own back-end."""

    def __init__(self, one, name, script):
        self.one, self.name, self.script, self.machines = one, name, script, 0
        self.tap = f"tap{name}"
        self.backend = self.guest = self.control = None
        one.add_tap(self.tap)
        one.space.ip("link", "set", self.tap, "master", "bridge", "up")

    def boot(self, device, *extra):
        self.machines += 1
        path = self.one.folder / f"{self.name}{self.machines}.qmp"
        self.guest = self.one.boot_preloaded(device, self.script, self.tap,
                                             ("-qmp", f"unix:{path},server=on,wait=off", *extra))
        lab.wait_until(lambda: self.connects(path), lab.START_LIMIT, "QEMU")

    def connects(self, path):
        """QEMU listens in the namespace, and the kernel lists its socket only there."""
        if status := self.guest.machine.poll():
            raise lab.LabError(f"QEMU ended with status {status}")
        try:
            self.control = lab.Qmp(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def stop(self):
        pass

    def close(self):
        pass


def journey(unread):
    return lambda one: net.moving(one, 2, "arp", ",disable-legacy=on", PreloadSite, unread)


def journeys(options):
    return (run("there and back with a file that nobody has read", options, journey(unread=True)) +
            run("there and back under a transfer", options, journey(unread=False)))


if __name__ == "__main__":
    sys.exit(main(__doc__, journeys))
