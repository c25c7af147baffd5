"""A network device's driver with an in-flight area, as far as it takes to have receive buffers given back: a ring that is
stopped gives back those that hold no frame, and `ringway serve net` is killed in the middle of that."""

import mmap
import os
import socket
import struct
import time

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR = 1, 2, 3, 5, 8, 9
SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 10, 11, 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, SET_VRING_ENABLE, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 15, 16, 18, 31, 32
VERSION_1, RING_PACKED, PROTOCOL_FEATURES = 1 << 32, 1 << 34, 1 << 30
REPLY_ACK, INFLIGHT_SHMFD = 1 << 3, 1 << 12
REPLY, NEEDS_REPLY = 4, 8
WRITE, AVAIL, USED = 2, 1 << 7, 1 << 15

SIZE = 8  # entries of each ring; as many buffers
MEMORY = 1 << 20
USER = 0x1000_0000  # where the driver says its memory is
RING_BYTES, AREA_BYTES = 0x3000, 0x1000
BUFFERS, BUFFER_BYTES = 0x10000, 2048
RECEIVE, TRANSMIT = 0, 1
HEADER = bytes(12)
PATIENCE = 30


class Gone(Exception):
    """The back-end has closed the connection."""


class Driver:

    def __init__(self, packed):
        self.packed = packed
        self.memory_fd = os.memfd_create("guest")
        os.ftruncate(self.memory_fd, MEMORY)
        self.memory = mmap.mmap(self.memory_fd, MEMORY)
        self.area_fd = self.area_said = None
        self.kicks = [os.eventfd(0), os.eventfd(0)]
        self.made = [0, 0]  # buffers available, of each ring

    def close(self):
        self.memory.close()
        for fd in (self.memory_fd, self.area_fd, *self.kicks):
            if fd is not None:
                os.close(fd)

    # ---- messages

    def ask(self, request, payload=b"", fds=(), has_reply=False):
        """The payload of the answer, and its fds."""
        message = struct.pack("=III", request, 1 | (0 if has_reply else NEEDS_REPLY), len(payload)) + payload
        try:
            socket.send_fds(self.connection, [message], list(fds))
            header, received, _, _ = socket.recv_fds(self.connection, 12, 4)
            if len(header) < 12:
                raise Gone
            size = struct.unpack("=III", header)[2]
            answer = self.connection.recv(size, socket.MSG_WAITALL)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Gone from error
        if not has_reply and struct.unpack("=Q", answer) != (0,):
            raise RuntimeError(f"request {request} is refused")
        return answer, received

    def connect(self, path):
        """Tells a back-end everything but the rings."""
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.settimeout(PATIENCE)
        self.connection.connect(str(path))
        offered = struct.unpack("=Q", self.ask(GET_FEATURES, has_reply=True)[0])[0]
        wanted = VERSION_1 | PROTOCOL_FEATURES | (RING_PACKED if self.packed else 0)
        if wanted & ~offered:
            raise RuntimeError(f"features are missing: {wanted & ~offered:x}")
        self.ask(GET_PROTOCOL_FEATURES, has_reply=True)
        self.connection.sendall(struct.pack("=IIIQ", SET_PROTOCOL_FEATURES, 1, 8, REPLY_ACK | INFLIGHT_SHMFD))
        self.ask(SET_OWNER)
        self.ask(SET_FEATURES, struct.pack("=Q", wanted))
        self.ask(SET_MEM_TABLE, struct.pack("=IIQQQQ", 1, 0, 0, MEMORY, USER, 0), [self.memory_fd])
        if self.area_fd is None:
            self.area_said, fds = self.ask(GET_INFLIGHT_FD, struct.pack("=QQHH4x", 0, 0, 2, SIZE), has_reply=True)
            self.area_fd = fds[0]
        self.ask(SET_INFLIGHT_FD, self.area_said, [self.area_fd])

    def start(self, ring):
        """Where the used index is: nothing has been used yet."""
        at = USER + self.area(ring, 0)
        self.ask(SET_VRING_NUM, struct.pack("=II", ring, SIZE))
        self.ask(SET_VRING_BASE, struct.pack("=II", ring, 0x8000_8000 if self.packed else 0))
        self.ask(SET_VRING_ADDR, struct.pack("=IIQQQQ", ring, 0, at, at + 2 * AREA_BYTES, at + AREA_BYTES, 0))
        self.ask(SET_VRING_CALL, struct.pack("=Q", ring | 0x100))
        self.ask(SET_VRING_ENABLE, struct.pack("=II", ring, 1))  # first: what a disabled ring sends is thrown away
        self.ask(SET_VRING_KICK, struct.pack("=Q", ring), [self.kicks[ring]])
        os.eventfd_write(self.kicks[ring], 1)

    def stop(self, ring):
        return self.ask(GET_VRING_BASE, struct.pack("=II", ring, 0), has_reply=True)

    def disconnect(self):
        self.connection.close()

    # ---- rings

    @staticmethod
    def area(ring, which):
        """Offset of descriptors, driver area or device area."""
        return 0x1000 + ring * RING_BYTES + which * AREA_BYTES

    @staticmethod
    def buffer(ring, index):
        return BUFFERS + (ring * SIZE + index) * BUFFER_BYTES

    def add(self, ring, length, flags):
        """Makes the next buffer of a ring available: each once."""
        index = self.made[ring]
        self.made[ring] += 1
        at = self.area(ring, 0) + index * 16
        if self.packed:
            struct.pack_into("=QIH", self.memory, at, self.buffer(ring, index), length, index)
            struct.pack_into("=H", self.memory, at + 14, flags | AVAIL)
            return
        struct.pack_into("=QIHH", self.memory, at, self.buffer(ring, index), length, flags, 0)
        struct.pack_into("=H", self.memory, self.area(ring, 1) + 4 + index * 2, index)
        struct.pack_into("=H", self.memory, self.area(ring, 1) + 2, self.made[ring])

    def used(self, ring):
        """The buffers that came back, in their order."""
        if not self.packed:
            count = struct.unpack_from("=H", self.memory, self.area(ring, 2) + 2)[0]
            entries = [struct.unpack_from("=II", self.memory, self.area(ring, 2) + 4 + i % SIZE * 8) for i in range(count)]
            return [index for index, _ in entries]
        found = []
        for position in range(SIZE):
            index, flags = struct.unpack_from("=HH", self.memory, self.area(ring, 0) + position * 16 + 12)
            if flags & (AVAIL | USED) != AVAIL | USED:
                break
            found.append(index)
        return found

    def in_flight(self):
        """How many buffers of the receive ring its in-flight area tells of."""
        header, entry = (32, 32) if self.packed else (16, 16)
        size, offset = struct.unpack_from("=QQ", self.area_said)
        return sum(os.pread(self.area_fd, size, offset)[header:header + SIZE * entry:entry])


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"never: {what}")
        time.sleep(0.001)


def give_back_and_die(path, packed, restart):
    """A ring with buffers that hold no frame is stopped, which the back-end does not survive. `restart` is called then, and
    starts another, which must find each buffer once, in order."""
    driver = Driver(packed)
    try:
        driver.connect(path)
        for _ in range(SIZE):
            driver.add(RECEIVE, BUFFER_BYTES, WRITE)
        driver.start(RECEIVE)
        wait_until(lambda: driver.in_flight() == SIZE, "all buffers are taken")
        try:
            driver.stop(RECEIVE)
            raise RuntimeError("the back-end has survived")
        except Gone:
            driver.disconnect()
        restart()
        driver.connect(path)
        driver.start(RECEIVE)
        for index in range(SIZE):
            frame = HEADER + b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes([index]) * 50
            driver.memory[driver.buffer(TRANSMIT, index):driver.buffer(TRANSMIT, index) + len(frame)] = frame
            driver.add(TRANSMIT, len(frame), 0)
        driver.start(TRANSMIT)
        wait_until(lambda: len(driver.used(RECEIVE)) >= SIZE, "all buffers have come back")
        if driver.used(RECEIVE) != list(range(SIZE)):
            raise RuntimeError(f"buffers came back as {driver.used(RECEIVE)}")
        for index in range(SIZE):
            at = driver.buffer(RECEIVE, index) + len(HEADER) + 14
            if driver.memory[at:at + 50] != bytes([index]) * 50:
                raise RuntimeError(f"buffer {index} holds another frame: {driver.memory[at:at + 50]}")
        driver.stop(RECEIVE)
        driver.stop(TRANSMIT)
        driver.disconnect()
    finally:
        driver.close()
