"""ringway probe against real and made-up back-ends."""

import socket
import struct
import time
import unittest

import peers
from peers import GET_CONFIG, GET_FEATURES, GET_PROTOCOL_FEATURES, u64

PROTOCOL_FEATURES, VERSION_1 = 1 << 30, 1 << 32
BLK = 1 << 2 | 1 << 6 | 1 << 9  # SEG_MAX, BLK_SIZE, FLUSH
MQ, REPLY_ACK, CONFIG = 1 << 0, 1 << 3, 1 << 9
SET_VRING_NUM, GET_QUEUE_NUM, GET_SHMEM_CONFIG = 8, 17, 44


class ProbeQemu(peers.Case):

    def test_it_is_known_as_the_disk_that_it_is(self):
        process = self.start_qemu(queues=2)
        found = self.json_of("probe", self.socket)
        self.assertEqual(found["device"], "blk")
        self.assertEqual(found["program"], {"name": "qemu-storage-daemon", "pid": process.pid})
        self.assertEqual(found["queues"], 2)
        self.assertEqual(found["configuration"]["bytes"], 60)
        fields = found["configuration"]["fields"]
        self.assertEqual(fields["capacity"] * 512, peers.DISK_BYTES)
        self.assertEqual(fields["num_queues"], 2)
        self.assertIn("CONFIG_WCE", found["features"]["names"])
        self.assertIn("REPLY_ACK", found["protocol_features"]["names"])
        self.assertIn("RING_PACKED is missing: split rings only", found["oddities"])

    def test_text_says_the_same(self):
        self.start_qemu()
        done = self.run_ringway("probe", self.socket)
        self.assertEqual(done.returncode, 0, done.stderr)
        for words in ("blk, judging by its features", "CONFIGURE_MEM_SLOTS", f"{peers.DISK_BYTES // 512}\n", "oddities"):
            self.assertIn(words, done.stdout)

    def test_acknowledgements_that_prove_nothing_are_told_on_demand(self):
        process = self.start_qemu()
        self.assertNotIn("answers success", " ".join(self.json_of("probe", self.socket)["oddities"]))
        hostile = self.json_of("probe", "--hostile", self.socket)["oddities"]
        self.assertIn("it answers success to a ring of 0 entries", hostile)
        self.assertIsNone(process.poll())

    def test_it_serves_on_after_many_probes(self):
        process = self.start_qemu()
        for _ in range(20):
            self.json_of("probe", self.socket)
        self.assertIsNone(process.poll())


class ProbeRingway(peers.Case):

    def test_nothing_is_odd(self):
        self.start_ringway("--memory=64M", "--queues=4")
        found = self.json_of("probe", "--hostile", self.socket)
        self.assertEqual(found["device"], "blk")
        self.assertEqual(found["queues"], 4)
        self.assertGreaterEqual(found["memory_slots"], 509)
        self.assertEqual(found["largest_ring"], 32768)
        self.assertEqual(found["configuration"]["fields"]["capacity"], (64 << 20) // 512)
        self.assertEqual(found["oddities"], [])


class ProbeErrors(peers.Case):

    def test_nothing_there(self):
        self.assert_fails("there is nothing at", "probe", self.socket)

    def test_a_file(self):
        (self.directory / "file").write_text("")
        self.assert_fails("is not a socket", "probe", self.directory / "file")

    def test_a_socket_that_was_left_behind(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.socket))
        listener.close()
        self.assert_fails("nobody listens at", "probe", self.socket)

    def test_a_datagram_socket(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(str(self.socket))
        self.assert_fails("is not a stream socket", "probe", self.socket)

    def test_a_back_end_that_never_answers(self):
        self.start_fake(lambda connection: connection.recv(1000, socket.MSG_PEEK) and time.sleep(3))
        begin = time.monotonic()
        self.assert_fails("it may be busy with another front-end", "probe", "--timeout=0.5", self.socket)
        self.assertLess(time.monotonic() - begin, 2.5)

    def test_a_back_end_that_hangs_up(self):
        self.start_fake(lambda connection: connection.close())
        self.assert_fails("it closed the connection at the first request", "probe", self.socket)

    def test_a_server_that_speaks_something_else(self):
        self.start_fake(lambda connection: connection.sendall(b"220 mail.example ESMTP ready\r\n"))
        self.assert_fails("does not answer as a vhost-user back-end does", "probe", self.socket)

    def test_a_reply_of_the_wrong_size(self):
        self.start_fake(peers.answering({GET_FEATURES: u64(VERSION_1)[:4]}))
        self.assert_fails("GET_FEATURES", "probe", self.socket)

    def test_a_device_without_protocol_features(self):
        self.start_fake(peers.answering({GET_FEATURES: u64(VERSION_1)}))
        found = self.json_of("probe", self.socket)
        self.assertIsNone(found["protocol_features"])
        self.assertIsNone(found["device"])
        self.assertIn("it knows no protocol features", found["oddities"][0])

    def test_a_line_that_is_exactly_full_ends_there(self):
        self.start_fake(peers.answering({GET_FEATURES: u64(VERSION_1 | PROTOCOL_FEATURES),
                                         GET_PROTOCOL_FEATURES: u64(0x99B66B)}))
        widths = [len(line) for line in self.run_ringway("probe", self.socket).stdout.splitlines()]
        self.assertEqual(max(widths), 100)

    def test_configuration_that_cannot_be_read(self):
        self.start_fake(peers.answering({GET_FEATURES: u64(VERSION_1 | PROTOCOL_FEATURES | BLK),
                                         GET_PROTOCOL_FEATURES: u64(CONFIG | REPLY_ACK), GET_CONFIG: b""}))
        found = self.json_of("probe", self.socket)
        self.assertEqual(found["device"], "blk")
        self.assertIsNone(found["configuration"])
        self.assertIn("CONFIG is offered, but GET_CONFIG fails for every size", found["oddities"])

    def test_shared_memory_in_the_wrong_bit(self):
        answers = {GET_FEATURES: u64(VERSION_1 | PROTOCOL_FEATURES), GET_PROTOCOL_FEATURES: u64(1 << 21 | 1 << 40)}
        self.start_fake(peers.answering(answers | {GET_SHMEM_CONFIG: bytes(8 + 8 * 256)}))
        oddities = "\n".join(self.json_of("probe", self.socket)["oddities"])
        self.assertIn("it takes bit 21 for SHMEM", oddities)
        self.assertIn("protocol feature bits that have no name here: 40", oddities)
        self.assertIn("REPLY_ACK is missing", oddities)

    def test_guest_addresses_in_the_right_bit(self):

        def talk(connection):
            for request, _, _ in peers.messages(connection):
                if request == GET_SHMEM_CONFIG:
                    connection.shutdown(socket.SHUT_RDWR)
                elif request in (GET_FEATURES, GET_PROTOCOL_FEATURES):
                    peers.reply(connection, request, u64(1 << 21 if request == GET_PROTOCOL_FEATURES else PROTOCOL_FEATURES))

        self.start_fake(talk)
        self.assertNotIn("SHMEM", "\n".join(self.json_of("probe", self.socket)["oddities"]))

    def test_a_back_end_that_does_not_survive_bad_requests(self):
        answers = {GET_FEATURES: u64(VERSION_1 | PROTOCOL_FEATURES), GET_PROTOCOL_FEATURES: u64(REPLY_ACK)}

        def talk(connection):
            for request, flags, payload in peers.messages(connection):
                if request == SET_VRING_NUM and payload == struct.pack("=II", 0, 0):
                    self.socket.unlink()
                    return connection.shutdown(socket.SHUT_RDWR)
                if request in answers or flags & 8:
                    peers.reply(connection, request, answers.get(request, u64(0)))

        self.start_fake(talk)
        oddities = self.json_of("probe", "--hostile", self.socket)["oddities"]
        self.assertIn("it did not survive a ring of 0 entries", oddities)

    def test_one_bad_answer_does_not_hide_the_others(self):
        self.start_fake(peers.answering({GET_FEATURES: u64(VERSION_1 | PROTOCOL_FEATURES | BLK),
                                         GET_PROTOCOL_FEATURES: u64(CONFIG | MQ),
                                         GET_QUEUE_NUM: b"",
                                         GET_CONFIG: struct.pack("=III20xI232x", 0, 256, 0, 512)}))
        found = self.json_of("probe", self.socket)
        self.assertIsNone(found["queues"])
        self.assertEqual(found["configuration"]["bytes"], 256)
        self.assertTrue(any("GET_QUEUE_NUM" in each for each in found["oddities"]))
        self.assertIn("the disk has no capacity", found["oddities"])

    def test_a_device_of_another_kind_is_shown_raw(self):
        config = bytes(range(256))
        self.start_fake(peers.answering({GET_FEATURES: u64(VERSION_1 | PROTOCOL_FEATURES | 1 << 15),
                                         GET_PROTOCOL_FEATURES: u64(CONFIG),
                                         GET_CONFIG: struct.pack("=III", 0, 256, 0) + config}))
        found = self.json_of("probe", self.socket)
        self.assertEqual(found["device"], "net")
        self.assertEqual(found["configuration"], {"bytes": 256, "hex": config.hex()})
        self.assertEqual(self.json_of("probe", "--type=fs", self.socket)["device"], "fs")


if __name__ == "__main__":
    unittest.main()
