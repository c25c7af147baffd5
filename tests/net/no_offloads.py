#!/usr/bin/env python3
"""no_offloads.py INTERFACE: it finishes what it sends, as what reads it by AF_XDP needs it: checksums, VLAN tags."""

import ctypes
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_GFLAGS, ETHTOOL_SFLAGS = 0x17, 0x25, 0x26
ETH_FLAG_TXVLAN = 1 << 7


def ask(interface, command, value=0):
    data = bytearray(struct.pack("II", command, value))
    address = (ctypes.c_char * len(data)).from_buffer(data)
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(address))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCETHTOOL, request)
    return struct.unpack("II", data)[1]


interface = sys.argv[1]
ask(interface, ETHTOOL_STXCSUM, 0)
ask(interface, ETHTOOL_SFLAGS, ask(interface, ETHTOOL_GFLAGS) & ~ETH_FLAG_TXVLAN)
