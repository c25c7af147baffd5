#!/usr/bin/env python3
"""Unmodified dpdk-testpmd, with libringway-vhost.so preloaded, takes it for the kernel's vhost-net: DPDK's virtio-user makes a
tap of its own, and whatever frames come in there go out again. Exit status 77 where there are no namespaces, taps or testpmd."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "net"), str(TESTS / "dpdk")]

import run as net  # noqa: E402
import testpmd  # noqa: E402
from net_lab import served_threads  # noqa: E402

FRAMES = 2000
TAP = "rwpmd0"
# Sends frames of all lengths to an interface, a few at a time, and waits until each of them has come back.
STATION = r"""
import socket, sys
kind = 0x88b5
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
s.bind((sys.argv[1], kind))
s.settimeout(5)
head = bytes([255] * 6 + [2, 0, 0, 0, 0, 1]) + kind.to_bytes(2, "big")
count, batch = int(sys.argv[2]), 50
for first in range(0, count, batch):
    sent = {head + bytes((number * 7 + i) % 256 for i in range(46 + number % 1400)) for number in range(first, first + batch)}
    for frame in sent:
        s.send(frame)
    while sent:
        frame, address = s.recvfrom(2000)
        if address[2] != socket.PACKET_OUTGOING:
            sent.remove(frame)
print("back:", count)
"""


def carry(library, space):
    port = testpmd.virtio_user("/dev/vhost-net", iface=TAP)
    with testpmd.Testpmd([port], wrap=space.wrap("env", f"LD_PRELOAD={library}")) as driver:
        driver.ready("Done")
        if b"Backend type detected: VHOST_NET" not in driver.output():
            raise RuntimeError("testpmd does not take the path for the kernel's vhost-net")
        if not served_threads(driver.pid):
            raise RuntimeError("testpmd has a vhost-net that is not ours")
        space.ip("link", "set", TAP, "up")
        driver.start()
        station = subprocess.run(space.wrap(sys.executable, "-c", STATION, TAP, str(FRAMES)), capture_output=True, text=True,
                                 timeout=60, check=False)
        counted = driver.stop()
    if station.returncode:
        raise RuntimeError(f"frames were lost: {station.stderr[-1000:]}\n{counted}")
    if min(counted["RX-packets"], counted["TX-packets"]) < FRAMES:
        raise RuntimeError(f"the driver has counted {counted}")
    print(f"ok   dpdk-testpmd: {FRAMES} frames came back from its tap")


def main():
    if not testpmd.PROGRAM:
        print("skip: dpdk-testpmd is not installed: Debian has it in dpdk-dev")
        return 77
    if not net.may_make_networks():
        return 77
    space = net.Namespace()
    try:
        carry(Path(sys.argv[1]).resolve(), space)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"FAIL: {error}")
        return 1
    finally:
        space.close()
    return 0


sys.exit(main())
