"""ringway serve --take-over, told what another version says: a recorded hand-over of format 1, and wrong ones.

The recording is what a process with one busy split ring has said; `python3 successor.py record FILE`, as the program of
`ringway upgrade --binary`, makes another."""

import contextlib
import copy
import json
import os
import pathlib
import socket
import struct
import subprocess
import unittest
import zlib

import peers
from hand_over import (ARM, ARMED, BEGIN, DEVICE, GO, OPENED, PLACE, PREPARE, PREPARED, REFUSED, RUNNING, START,
                       receive_letter, send)

RECORDED = pathlib.Path(__file__).parent / "hand_over_format_1.json"
SET_MEM_TABLE, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 5, 9, 10, 11
GET_CONFIG, WRITEBACK = 24, 32  # the latter in the configuration space
ANSWERED = {DEVICE: OPENED, PREPARE: PREPARED, ARM: ARMED, GO: RUNNING}


class HandOver(peers.Case):
    """We are the old process, and the front-end too."""

    def setUp(self):
        super().setUp()
        self.messages = json.loads(RECORDED.read_text())
        for message in self.messages:
            message["payload"] = bytes.fromhex(message["payload"])
        self.front_end, self.connection = socket.socketpair()
        self.front_end.settimeout(10)
        self.disk = self.directory / "disk"
        with open(self.disk, "wb") as file:
            file.truncate(32 << 20)
        self.memory = os.memfd_create("memory")
        self.base = self.find(SET_VRING_BASE, "=II")[1]
        self.lay_out_memory()
        self.addCleanup(os.close, self.memory)
        self.addCleanup(self.front_end.close)
        self.addCleanup(self.connection.close)

    def find(self, kind, layout):
        payload = next(message["payload"] for message in self.messages if message["kind"] == kind)
        return struct.unpack_from(layout, payload)

    def lay_out_memory(self):
        """An idle ring: the driver has made as much available as was used."""
        _, _, _, size, user, offset = self.find(SET_MEM_TABLE, "=IIQQQQ")
        os.ftruncate(self.memory, offset + size)
        _, _, _, used, avail, _ = self.find(SET_VRING_ADDR, "=IIQQQQ")
        for area in used, avail:
            os.pwrite(self.memory, struct.pack("=HH", 0, self.base), area - user + offset)

    def descriptor(self, kind):
        match kind:
            case "memory":
                return os.dup(self.memory)
            case "event":
                return os.eventfd(0)
            case "connection":
                return os.dup(self.connection.fileno())
            case "state":
                file = os.memfd_create("state")
                os.pwrite(file, self.state, 0)
                return file
            case "file":
                return os.open(self.disk, os.O_RDWR)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self.socket))
        listening.listen()
        listening.setblocking(False)
        return listening.detach()

    def payload(self, message):
        """With the place where this test is."""
        if message["kind"] < BEGIN:
            return message["payload"]
        body = json.loads(message["payload"])
        if "place" in body:
            body["place"] = str(self.socket)
        return json.dumps(body).encode()

    def start_successor(self):
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        self.addCleanup(ours.close)
        with theirs:
            self.successor = subprocess.Popen(
                [peers.RINGWAY, "serve", f"--take-over={theirs.fileno()}", "blk", f"--socket-path={self.socket}",
                 f"--blk-file={self.disk}"], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(self.successor.stderr.close)
        self.addCleanup(self.end, self.successor)
        return ours

    def tell(self, messages):
        """Says it all; what was answered last."""
        channel = self.start_successor()
        answer = None
        for message in messages:
            fds = [self.descriptor(kind) for kind in message["fds"]]
            with contextlib.suppress(BrokenPipeError):  # its last word is still to be read
                send(channel, message["kind"], self.payload(message), fds)
            for fd in fds:
                os.close(fd)
            if message["kind"] in ANSWERED:
                answer = receive_letter(channel)
                self.assertIsNotNone(answer, "it ended without a word")
                if answer[0] != ANSWERED[message["kind"]]:
                    break
        return answer

    def ask_front_end(self, request, payload=b""):
        self.front_end.sendall(struct.pack("=III", request, 1, len(payload)) + payload)
        size = struct.unpack("=III", self.front_end.recv(12, socket.MSG_WAITALL))[2]
        return self.front_end.recv(size, socket.MSG_WAITALL)

    def test_a_recorded_hand_over_is_taken(self):
        kind, body, _ = self.tell(self.messages)
        self.assertEqual(kind, RUNNING, body)
        self.assertTrue(struct.unpack("=Q", self.ask_front_end(peers.GET_FEATURES))[0] & 1 << 30)
        self.assertEqual(struct.unpack("=II", self.ask_front_end(GET_VRING_BASE, struct.pack("=II", 0, 0))), (0, self.base))

    def changed(self, kind, **fields):
        messages = copy.deepcopy(self.messages)
        message = next(one for one in messages if one["kind"] == kind)
        message["payload"] = json.dumps(json.loads(message["payload"]) | fields).encode()
        return messages

    def assert_refused(self, why, messages):
        kind, body, _ = self.tell(messages)
        self.assertEqual(kind, REFUSED)
        self.assertIn(why, body["why"])
        self.assertNotEqual(self.successor.wait(10), 0)
        # The front-end's connection is whole, and so is the socket.
        self.front_end.setblocking(False)
        self.assertRaises(BlockingIOError, self.front_end.recv, 1)

    def with_state(self, writeback, disk_bytes=32 << 20):
        """The hand-over of a disk whose driver has chosen a cache mode."""
        model = struct.pack("<IIQ", 1, writeback, disk_bytes)
        whole = b"WAYSTATE" + struct.pack("<IIQ", 1, 2, len(model)) + model
        self.state = whole + struct.pack("<I", zlib.crc32(whole))
        messages = self.changed(START, fds=["state"])
        next(one for one in messages if one["kind"] == START)["fds"] = ["state"]
        return messages

    def test_the_state_of_the_device_goes_along(self):
        for writeback in 0, 1:
            kind, body, _ = self.tell(self.with_state(writeback))
            self.assertEqual(kind, RUNNING, body)
            config = self.ask_front_end(GET_CONFIG, struct.pack("=III", WRITEBACK, 1, 0) + b"\0")
            self.assertEqual(config[12], writeback)
            self.end(self.successor)
            self.socket.unlink()

    def test_a_state_that_is_wrong_is_refused(self):
        messages = self.with_state(0)
        self.state = self.state[:-1] + bytes([self.state[-1] ^ 1])
        self.assert_refused(str(self.socket), messages)
        self.socket.unlink()
        self.assert_refused("the disk was larger elsewhere", self.with_state(0, disk_bytes=64 << 20))

    def test_another_format_is_refused(self):
        self.assert_refused("understands format 1 of the hand-over, not 2", self.changed(BEGIN, format=2))

    def test_an_unknown_field_is_refused_by_its_name(self):
        for kind in BEGIN, DEVICE, PLACE, START:
            self.assert_refused('unknown field "colour"', self.changed(kind, colour="blue"))
            with contextlib.suppress(FileNotFoundError):
                self.socket.unlink()

    def test_a_field_of_another_type_is_refused_by_its_name(self):
        self.assert_refused('"messages"', self.changed(PLACE, messages="many"))

    def test_a_device_of_another_type_is_refused(self):
        self.assert_refused("is configured as blk, and is net now", self.changed(DEVICE, type="net"))

    def test_messages_that_the_device_refuses_are_refused(self):
        messages = copy.deepcopy(self.messages)
        next(one for one in messages if one["kind"] == SET_VRING_ADDR)["payload"] = struct.pack("=IIQQQQ", 0, 0, 1, 2, 3, 0)
        self.assert_refused("SET_VRING_ADDR", messages)

    def test_one_who_is_left_alone_ends(self):
        channel = self.start_successor()
        channel.close()
        self.assertNotEqual(self.successor.wait(10), 0)


if __name__ == "__main__":
    unittest.main()
