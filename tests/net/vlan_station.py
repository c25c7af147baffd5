#!/usr/bin/env python3
"""A station on a VLAN of an interface: answers ARP and pings, so that the kernel of this machine needs no VLANs.
Arguments: interface, VLAN, IPv4 address. Prints a line when it listens."""

import socket
import struct
import sys

SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4
ARP, IPV4 = 0x0806, 0x0800
MAC = bytes.fromhex("027700000a01")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def answer(kind, packet, own):
    if kind == ARP and packet[6:8] == b"\0\1" and packet[24:28] == own:
        return packet[:6] + b"\0\2" + MAC + own + packet[8:18]
    header = (packet[0] & 15) * 4
    if kind == IPV4 and packet[9] == 1 and packet[16:20] == own and packet[header] == 8:
        length = struct.unpack(">H", packet[2:4])[0]
        echo = b"\0\0\0\0" + packet[header + 4:length]
        echo = echo[:2] + struct.pack(">H", checksum(echo)) + echo[4:]
        return packet[:12] + packet[16:20] + packet[12:16] + packet[20:header] + echo
    return None


def main():
    interface, vlan, address = sys.argv[1], int(sys.argv[2]), socket.inet_aton(sys.argv[3])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as one:
        one.bind((interface, 0))
        one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        print("ready", flush=True)
        while True:
            frame, auxiliary, _, _ = one.recvmsg(1 << 16, 256)
            for level, what, data in auxiliary:
                if level != SOL_PACKET or what != PACKET_AUXDATA:
                    continue
                status, _, _, _, _, tag, _ = struct.unpack("IIIHHHH", data[:20])
                if not status & TP_STATUS_VLAN_VALID or tag & 0xfff != vlan:
                    continue
                kind = struct.unpack(">H", frame[12:14])[0]
                if reply := answer(kind, frame[14:], address):
                    one.send(frame[6:12] + MAC + struct.pack(">HHH", 0x8100, vlan, kind) + reply)


try:
    main()
except OSError:
    pass  # the interface is gone
