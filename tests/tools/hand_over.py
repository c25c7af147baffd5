"""Format 1 of the hand-over, from outside: letters and frames over a socket. docs/upgrade-format.md"""

import array
import json
import socket
import struct

BEGIN, DEVICE, PLACE, PREPARE, START, ARM, GO = range(1001, 1008)
REFUSED, OPENED, PREPARED, ARMED, RUNNING = range(1101, 1106)


def send(connection, kind, payload=b"", fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    message = struct.pack("=III", kind, 1, len(payload)) + payload
    if connection.sendmsg([message], rights) != len(message):
        raise OSError("a message was sent in part")


def send_letter(connection, kind, body, fds=()):
    send(connection, kind, json.dumps(body).encode(), fds)


def receive(connection):
    """Kind, payload, file descriptors; nothing at the end."""
    header, fds, _, _ = socket.recv_fds(connection, 12, 16)
    if len(header) < 12:
        return None
    kind, _, size = struct.unpack("=III", header)
    return kind, connection.recv(size, socket.MSG_WAITALL) if size else b"", fds


def receive_letter(connection):
    message = receive(connection)
    if message is None:
        return None
    kind, payload, fds = message
    return kind, json.loads(payload), fds
