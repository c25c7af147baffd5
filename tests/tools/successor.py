"""A successor that goes wrong at a certain point of the hand-over: python3 successor.py HOW, with the socket as fd 3.
Or that writes down all that it hears: python3 successor.py record FILE"""

import json
import os
import socket
import sys
import time

from hand_over import (ARM, ARMED, BEGIN, DEVICE, GO, OPENED, PREPARE, PREPARED, PLACE, REFUSED, START, receive, receive_letter, send,
                       send_letter)

how = sys.argv[1]
connection = socket.socket(fileno=3)


def kind_of(fd):
    link = os.readlink(f"/proc/self/fd/{fd}")
    if link.startswith("/memfd:") or link.startswith("/dev/shm"):
        return "memory"
    if "eventfd" in link:
        return "event"
    if not link.startswith("socket:"):
        return "file"
    listens = socket.socket(fileno=os.dup(fd)).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return "listening" if listens else "connection"


def record(path):
    """All of it but the end, which is known."""
    messages = []
    while not messages or messages[-1]["kind"] != ARM:
        kind, payload, fds = receive(connection)
        messages.append({"kind": kind, "payload": payload.hex(), "fds": [kind_of(fd) for fd in fds]})
        if kind == DEVICE:
            send_letter(connection, OPENED, {})
        if kind == PREPARE:
            send_letter(connection, PREPARED, {})
    messages.append({"kind": GO, "payload": b"{}".hex(), "fds": []})
    with open(path, "w", encoding="ascii") as file:
        file.write("[\n" + ",\n".join(json.dumps(message) for message in messages) + "\n]\n")
    sys.exit(1)


def refuse(why):
    send_letter(connection, REFUSED, {"why": why})
    sys.exit(1)


if how == "record":
    record(sys.argv[2])
if how == "nonsense":
    send(connection, 1, b"x" * 100)
    time.sleep(100)

kind, body, _ = receive_letter(connection)
assert kind == BEGIN and body["format"] == 1
if how == "another-format":
    refuse(f"this program understands format 2 of the hand-over, not {body['format']}")
for _ in range(body["devices"]):
    receive_letter(connection)
send_letter(connection, OPENED, {})


def skip_until(end, letters):
    while True:
        kind, body, fds = receive_letter(connection)
        for fd in fds:
            os.close(fd)
        if kind == end:
            return
        assert kind in letters
        for _ in range(body["messages"]):
            for fd in receive(connection)[2]:
                os.close(fd)


skip_until(PREPARE, [PLACE])
if how == "refuse-sessions":
    refuse("does not want to")
send_letter(connection, PREPARED, {})
skip_until(ARM, [START])
if how == "end-before-armed":
    sys.exit(0)
if how == "end-after-go":
    send_letter(connection, ARMED, {})
    receive_letter(connection)
    sys.exit(1)
time.sleep(100)
