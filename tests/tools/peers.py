"""What the tests here talk to: real back-ends and made-up ones, and the program under test."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

RINGWAY = os.environ.get("RINGWAY", "ringway")
DISK_BYTES = 64 << 20
# Who may not do everything; none: who runs the tests already is such a user.
NOBODY = 65534 if os.geteuid() == 0 else None


class Case(unittest.TestCase):
    """Each test has a directory, and ends what it has started."""

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ringway-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.socket = self.directory / "socket"

    def start(self, *command):
        """Starts a program and returns when its socket answers."""
        log = open(self.directory / "log", "wb")
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.end, process)
        log.close()
        deadline = time.monotonic() + 20
        while not self.socket.is_socket():
            if process.poll() is not None or time.monotonic() > deadline:
                self.fail(f"{command[0]} does not listen: {(self.directory / 'log').read_text()}")
            time.sleep(0.02)
        return process

    @staticmethod
    def end(process):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()

    def start_qemu(self, queues=2):
        disk = self.directory / "disk"
        with open(disk, "wb") as file:
            file.truncate(DISK_BYTES)
        return self.start(
            "qemu-storage-daemon", "--blockdev", f"driver=file,node-name=disk,filename={disk},discard=unmap", "--export",
            f"type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},"
            f"addr.type=unix,addr.path={self.socket}")

    def start_ringway(self, *options, program=RINGWAY):
        return self.start(program, "serve", "blk", f"--socket-path={self.socket}", *options)

    def start_fake(self, talk):
        """A back-end that is `talk`, called with each connection on a thread."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.socket))
        listener.listen()
        connections = []

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                with contextlib.suppress(OSError):
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()

        def end():
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            thread.join()

        self.addCleanup(end)

    def run_ringway(self, *words, timeout=60, user=None):
        return subprocess.run([RINGWAY, *(str(word) for word in words)], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, check=False, user=user)

    def json_of(self, *words, status=0):
        done = self.run_ringway(*words, "--json")
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def assert_fails(self, sentence, *words, user=None):
        done = self.run_ringway(*words, user=user)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(sentence, done.stderr)
        self.assertEqual(done.stdout, "")


# ---- the protocol, as far as made-up back-ends need it ------------------------------------------------------------

GET_FEATURES, GET_PROTOCOL_FEATURES, GET_CONFIG = 1, 15, 24


def messages(connection):
    """Yields request, flags and payload of each message."""
    while header := connection.recv(12, socket.MSG_WAITALL):
        request, flags, size = struct.unpack("=III", header)
        yield request, flags, connection.recv(size, socket.MSG_WAITALL) if size else b""


def reply(connection, request, payload):
    connection.sendall(struct.pack("=III", request, 5, len(payload)) + payload)


def u64(value):
    return struct.pack("=Q", value)


def answering(answers):
    """A back-end that answers requests by a table and acknowledges the others."""

    def talk(connection):
        for request, flags, _ in messages(connection):
            if request in answers:
                reply(connection, request, answers[request])
            elif flags & 8:
                reply(connection, request, u64(0))

    return talk
