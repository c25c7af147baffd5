"""ringway bench against real and made-up back-ends: every run verifies what it reads."""

import array
import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

import peers


class BenchCase(peers.Case):

    def verified(self, *options, status=0):
        result = self.json_of("bench", "blk", self.socket, "--verify", "--runtime=0.4", "--warmup=0", "--size=8M", *options,
                              status=status)
        self.assertEqual(result["errors"], [])
        self.assertEqual(result["read"]["failed"] + result["write"]["failed"], 0)
        account = result["verify"]
        self.assertEqual(account["wrong"], 0 if status == 0 else account["wrong"])
        self.assertEqual(account["unsure"], 0)
        return result

    def check_all_patterns(self, *options):
        for pattern in ("randread", "randwrite", "read", "write", "randrw"):
            with self.subTest(pattern=pattern, options=options):
                result = self.verified(f"--rw={pattern}", *options)
                reads, writes = result["read"]["requests"], result["write"]["requests"]
                self.assertEqual(reads > 0, pattern != "write" and pattern != "randwrite")
                self.assertEqual(writes > 0, pattern != "read" and pattern != "randread")
                self.assertGreaterEqual(result["verify"]["checked"], min(reads + writes, 100))
                self.assertGreaterEqual(result["verify"]["written"], writes)


class BenchQemu(BenchCase):

    def test_split_rings(self):
        self.start_qemu()
        self.check_all_patterns()

    def test_split_rings_without_what_makes_them_fast(self):
        self.start_qemu()
        result = self.verified("--rw=randrw", "--no-indirect", "--no-event-idx", "--iodepth=40")
        self.assertFalse(result["options"]["indirect"] or result["options"]["event_idx"])

    def test_two_queues(self):
        self.start_qemu(queues=2)
        self.check_all_patterns("--queues=2")

    def test_sleeping_until_it_is_called(self):
        self.start_qemu()
        result = self.verified("--rw=randrw", "--interrupt", "--iodepth=1")
        self.assertGreater(result["signals"]["sleeps"], 0)
        self.check_all_patterns("--interrupt", "--queues=2", "--iodepth=16")

    def test_large_requests(self):
        self.start_qemu()
        self.verified("--rw=randrw", "--bs=256k", "--iodepth=4")

    def test_packed_rings_are_not_there(self):
        self.start_qemu()
        self.assert_fails("the back-end has no packed rings", "bench", "blk", self.socket, "--packed")

    def test_more_queues_than_there_are(self):
        self.start_qemu(queues=2)
        self.assert_fails("fewer queues than asked for (2", "bench", "blk", self.socket, "--queues=3")

    def test_control_c_ends_it_with_the_result_so_far(self):
        self.start_qemu()
        bench = subprocess.Popen([peers.RINGWAY, "bench", "blk", str(self.socket), "--runtime=60"], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, bench)
        time.sleep(1.5)
        bench.send_signal(signal.SIGINT)
        output, errors = bench.communicate(timeout=20)
        self.assertEqual(bench.returncode, 0, errors)
        self.assertIn("interrupted: this is the result so far", output)
        self.assertIn(" IOPS", output)

    def test_a_back_end_that_dies(self):
        process = self.start_qemu()
        bench = subprocess.Popen([peers.RINGWAY, "bench", "blk", str(self.socket), "--runtime=60"], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, bench)
        time.sleep(1)
        process.kill()
        _, errors = bench.communicate(timeout=20)
        self.assertEqual(bench.returncode, 1, "it has not hung")
        self.assertIn("the back-end has closed the connection", errors)

    def test_a_back_end_that_stops_answering(self):
        process = self.start_qemu()
        bench = subprocess.Popen([peers.RINGWAY, "bench", "blk", str(self.socket), "--runtime=60", "--timeout=1"], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, bench)
        time.sleep(1)
        process.send_signal(signal.SIGSTOP)
        _, errors = bench.communicate(timeout=20)
        self.assertEqual(bench.returncode, 3)
        self.assertIn("nothing has come back for 1 seconds", errors)


class BenchRingway(BenchCase):

    def serve_memory(self, *options):
        return self.start_ringway("--memory=64M", "--queues=2", *options)

    def test_split_rings(self):
        self.serve_memory()
        self.check_all_patterns()

    def test_packed_rings(self):
        self.serve_memory()
        self.check_all_patterns("--packed")
        self.verified("--rw=randrw", "--packed", "--no-indirect", "--no-event-idx", "--iodepth=40", "--ring-size=300")

    def test_two_queues(self):
        self.serve_memory()
        self.check_all_patterns("--queues=2")
        self.check_all_patterns("--queues=2", "--packed", "--interrupt")

    def test_sleeping_until_it_is_called(self):
        self.serve_memory("--poll=never")
        for packed in ((), ("--packed",)):
            result = self.verified("--rw=randrw", "--interrupt", "--iodepth=1", *packed)
            self.assertGreater(result["signals"]["sleeps"], 0)
            self.verified("--rw=randrw", "--interrupt", "--no-event-idx", *packed)

    def test_a_file(self):
        disk = self.directory / "disk"
        with open(disk, "wb") as file:
            file.truncate(peers.DISK_BYTES)
        self.start_ringway(f"--blk-file={disk}", "--queues=2")
        self.check_all_patterns("--queues=2")
        self.verified("--rw=randrw", "--packed", "--bs=256k", "--iodepth=4")

    def test_a_disk_that_forgets_is_found_out(self):
        self.start_ringway("--null=64M")
        result = self.verified("--rw=randwrite", status=1)
        account = result["verify"]
        self.assertEqual(account["wrong"], account["checked"])
        self.assertGreater(account["checked"], 0)
        self.assertEqual(len(account["first"]), 8)

    def test_a_read_only_disk_is_not_written(self):
        disk = self.directory / "disk"
        with open(disk, "wb") as file:
            file.truncate(peers.DISK_BYTES)
        self.start_ringway(f"--blk-file={disk}", "--read-only")
        self.assert_fails("the disk is read-only", "bench", "blk", self.socket, "--rw=randwrite")
        result = self.json_of("bench", "blk", self.socket, "--runtime=0.2", "--warmup=0")
        self.assertGreater(result["read"]["requests"], 0)

    def test_a_dirty_log_is_large_enough_for_all_that_may_be_written(self):
        self.serve_memory()
        for packed in ((), ("--packed",)):
            result = self.json_of("bench", "blk", self.socket, "--dirty-log", "--iodepth=32", "--runtime=0.2", "--warmup=0", *packed)
            self.assertGreaterEqual(result["dirty_pages"], 32)

    def test_cpu_of_both_sides_is_told(self):
        process = self.serve_memory("--poll=always")
        result = self.json_of("bench", "blk", self.socket, "--runtime=1.5", "--warmup=0.1")
        self.assertEqual(result["back_end"]["pid"], process.pid)
        self.assertGreater(result["cpu"]["driver"], 0)
        self.assertGreater(result["cpu"]["back_end"], 0)


class BenchReconnect(BenchCase):
    """The bench goes on with the next back-end, and does not believe it."""

    BLOCKS, DEPTH = 512, 32
    EXECUTED, FIRST = 5, 7  # words of the testimony (backing/witness.h)

    def serve(self):
        self.socket.unlink(missing_ok=True)
        return self.start_ringway(f"--blk-file={self.disk}", f"--witness={self.witness}")

    def account(self):
        return array.array("Q", self.witness.read_bytes())

    def wait_until(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            self.assertIsNone(self.bench.poll(), "the bench has ended")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def wait_for_writes(self, more):
        begin = self.account()[self.EXECUTED]
        self.wait_until(lambda: self.account()[self.EXECUTED] > begin + more)

    def stop_bench(self):
        self.bench.send_signal(signal.SIGSTOP)
        self.wait_until(lambda: pathlib.Path(f"/proc/{self.bench.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")

    def block_just_acknowledged(self):
        """Stops the bench, and gives a block that was acknowledged last, or nearly so, and is on the disk."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.bench.send_signal(signal.SIGCONT)
            before = self.account()
            while self.account()[self.FIRST:] == before[self.FIRST:] and time.monotonic() < deadline:
                pass
            self.stop_bench()
            after = self.account()
            grown = [now - then for now, then in zip(after[self.FIRST:], before[self.FIRST:])]
            if sum(grown) > self.DEPTH:
                continue
            for block in (block for block, count in enumerate(grown) if count):
                with open(self.disk, "rb") as file:
                    file.seek(block * 4096)
                    _, _, offset, generation = peers.struct.unpack("=QQQQ", file.read(32))
                if (offset, generation) == (block * 4096, after[self.FIRST + block]):
                    return block
        self.fail("the bench could never be stopped in time")

    def serve_bench(self, *options):
        """The server, under a bench that has written for a while."""
        self.disk, self.witness = self.directory / "disk", self.directory / "witness"
        self.disk.write_bytes(bytes(self.BLOCKS * 4096))
        server = self.serve()
        self.bench = subprocess.Popen(
            [peers.RINGWAY, "bench", "blk", str(self.socket), "--verify", "--reconnect", f"--witness={self.witness}",
             f"--size={self.BLOCKS * 4096}", f"--iodepth={self.DEPTH}", "--rw=randwrite", "--runtime=600", "--json", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, self.bench)
        self.wait_until(lambda: self.witness.exists() and self.witness.stat().st_size > self.BLOCKS * 8)
        self.wait_for_writes(self.BLOCKS)
        return server

    def find_lost_block(self, *options):
        server = self.serve_bench("--timeout=60", *options)
        block = self.block_just_acknowledged()
        server.kill()
        server.wait()
        with open(self.disk, "r+b") as file:
            file.seek(block * 4096)
            file.write(bytes(4096))
        self.serve()
        self.bench.send_signal(signal.SIGCONT)
        self.wait_for_writes(40 * self.BLOCKS)
        self.bench.send_signal(signal.SIGINT)
        said = json.loads(self.bench.communicate(timeout=60)[0])
        self.assertEqual(self.bench.returncode, 1)
        self.assertEqual(said["verify"]["wrong"], 1, said["verify"])
        first = said["verify"]["first"][0]
        self.assertEqual((first["offset"], first["verdict"]), (block * 4096, "zeros"))
        self.assertEqual((said["errors"], said["reconnects"], said["witness"]["repeated"]), ([], 1, 0))

    def test_a_block_that_is_lost_with_its_back_end_is_found_though_all_is_written_over_soon(self):
        self.find_lost_block()

    def test_the_same_with_packed_rings(self):
        self.find_lost_block("--packed")

    def test_nobody_who_comes_back_is_told_apart_from_other_errors(self):
        server = self.serve_bench("--timeout=3")
        server.kill()
        server.wait()
        said, errors = self.bench.communicate(timeout=60)
        self.assertIn("nobody has come back for", errors)
        self.assertEqual((self.bench.returncode, json.loads(said)["hung"]), (3, True))


class BenchErrors(peers.Case):

    def bench(self, *options):
        return "bench", "blk", self.socket, *options

    def test_a_back_end_that_keeps_no_account(self):
        self.start_ringway("--memory=1M")
        kept, self.socket = self.socket, self.directory / "other"
        self.start(peers.RINGWAY, "proxy", self.socket, kept, "--mask-protocol=INFLIGHT_SHMFD")
        self.assert_fails("keeps no account of what is in flight", *self.bench("--reconnect"))

    def test_nothing_there(self):
        self.assert_fails("there is nothing at", *self.bench())

    def test_a_back_end_that_never_answers(self):
        self.start_fake(lambda connection: time.sleep(2))
        self.assert_fails("(an answer may take 0.3 s)", *self.bench("--timeout=0.3"))

    def test_a_device_that_is_no_disk(self):
        self.start_fake(peers.answering({peers.GET_FEATURES: peers.u64(1 << 32 | 1 << 30),
                                         peers.GET_PROTOCOL_FEATURES: peers.u64(1 << 3)}))
        self.assert_fails("it is not a disk", *self.bench())

    def test_options_that_make_no_sense(self):
        for option, sentence in (("--bs=100", "multiple of 512"), ("--bs=1G", "at most 64M"), ("--bs=x", "not a size"),
                                 ("--cpus=a", "not a list of CPUs"), ("--rw=sideways", "--rw"),
                                 ("--iodepth=0", "--iodepth"), ("--queues=257", "--queues"), ("--size=0", "--size"),
                                 ("--nonsense", "--nonsense")):
            with self.subTest(option=option):
                self.assert_fails(sentence, *self.bench(option))

    def test_a_cpu_that_does_not_exist(self):
        peers.Case.start_qemu(self)
        self.assert_fails_with_report("cannot run on CPU 4000", "--cpus=4000", "--runtime=0.2")

    def test_a_region_that_is_not_on_the_disk(self):
        self.start_qemu()
        self.assert_fails("behind its end", *self.bench("--offset=1T"))
        self.assert_fails("the disk has only", *self.bench("--size=1T"))
        self.assert_fails("too few", *self.bench("--size=64k", "--verify"))

    def test_a_directory_that_cannot_be_searched(self):
        if os.geteuid() == 0:
            self.skipTest("root may go anywhere")
        self.directory.chmod(0)
        self.addCleanup(self.directory.chmod, 0o700)
        self.assert_fails("you may not connect", *self.bench())

    def assert_fails_with_report(self, sentence, *options):
        done = self.run_ringway(*self.bench(*options))
        self.assertEqual(done.returncode, 1)
        self.assertIn(sentence, done.stderr)


if __name__ == "__main__":
    unittest.main()
