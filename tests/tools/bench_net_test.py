"""ringway bench net against our own back-end: every frame is numbered and checked."""

import time
import unittest

import peers


class BenchNetCase(peers.Case):

    def serve(self, port="loop", *options):
        return self.start(peers.RINGWAY, "serve", "net", f"--socket-path={self.socket}", f"--port={port}", *options)

    def bench(self, *options, status=0, seconds=0.3):
        result = self.json_of("bench", "net", self.socket, f"--runtime={seconds}", "--warmup=0", *options, status=status)
        self.assertEqual(result["errors"], [])
        return result

    def verified(self, *options):
        result = self.bench("--mode=loop", "--verify", *options)
        account = result["account"]
        self.assertGreater(account["received"], 100)
        self.assertEqual(account["sent"], account["received"])
        for flaw in ("lost", "late", "duplicates", "changed", "foreign"):
            self.assertEqual(account[flaw], 0, account)
        return result

    def check_rings(self, *options):
        for packed in ((), ("--packed",)):
            with self.subTest(packed=packed, options=options):
                result = self.verified(*packed, *options)
                self.assertEqual(result["options"]["packed"], bool(packed))


class BenchNet(BenchNetCase):

    def test_both_ring_formats(self):
        self.serve()
        self.check_rings()

    def test_without_what_makes_rings_fast(self):
        self.serve()
        self.check_rings("--no-in-order", "--no-event-idx", "--ring-size=16")

    def test_frames_of_all_sizes(self):
        self.serve()
        for size in ("60", "imix", "1500"):
            self.check_rings(f"--size={size}")

    def test_frames_in_many_buffers(self):
        self.serve()
        self.check_rings("--size=1500", "--buffer=128")
        self.check_rings("--size=imix", "--buffer=128", "--no-in-order")

    def test_buffers_that_are_not_merged(self):
        self.serve()
        self.check_rings("--size=imix", "--no-mergeable")

    def test_headers_with_descriptors_of_their_own(self):
        self.serve()
        self.check_rings("--own-header")
        self.check_rings("--indirect", "--size=imix")

    def test_four_pairs_of_queues(self):
        self.serve("loop", "--queues=4")
        self.check_rings("--queues=4")
        self.check_rings("--queues=4", "--threads=2")

    def test_sleeping_until_it_is_called(self):
        self.serve("loop", "--poll=never")
        for packed in ((), ("--packed",)):
            result = self.bench("--mode=ping", "--verify", "--interrupt", *packed)
            self.assertGreater(result["signals"]["sleeps"], 0)
            self.assertEqual(result["account"]["lost"], 0)

    def test_one_frame_at_a_time_is_timed(self):
        self.serve()
        result = self.bench("--mode=ping")
        latency = result["latency_ns"]
        self.assertGreater(latency["min"], 0)
        self.assertLessEqual(latency["percentiles"]["50"], latency["percentiles"]["99"])
        self.assertEqual(result["options"]["window"], 1)

    def test_large_frames(self):
        self.serve("loop", "--mtu=65535")
        for options in ((), ("--no-mergeable", "--buffer=66000", "--ring-size=64")):
            self.check_rings("--size=64k", *options)

    def test_an_MTU_that_we_tell_the_back_end(self):
        for options in (), ("--mtu=1500",):
            process = self.serve("loop", *options)
            self.assertEqual(self.bench("--mode=loop")["options"]["mtu"], 1500)
            for packed in (), ("--packed",):
                result = self.verified("--size=9000", "--mtu=9000", *packed)
                self.assertEqual(result["options"]["mtu"], 9000)
            self.end(process)
            self.socket.unlink()

    def test_frames_that_are_left_to_be_segmented(self):
        self.serve("null")
        result = self.bench("--mode=tx", "--size=64k")
        self.assertGreater(result["sent"]["packets"], 100)
        self.assertEqual(result["sent"]["bytes"], 65536 * result["sent"]["packets"])

    def test_frames_that_nobody_would_segment(self):
        self.serve("loop")
        self.assert_fails("neither has so large an MTU nor segments", "bench", "net", self.socket, "--mode=loop", "--size=64k")

    def test_transmitting_to_nowhere(self):
        process = self.serve("null")
        result = self.bench("--mode=tx", "--size=512")
        self.assertEqual(result["sent"]["bytes"], 512 * result["sent"]["packets"])
        self.assertGreater(result["sent"]["packets"], 100)
        self.assertEqual(result["received"]["packets"], 0)
        self.assertEqual(result["back_ends"][0]["pid"], process.pid)

    def test_receiving_from_a_source(self):
        self.serve("null:send=300")
        for options in ((), ("--packed",), ("--no-mergeable",)):
            result = self.bench("--mode=rx", *options)
            self.assertGreater(result["received"]["packets"], 100)
            self.assertEqual(result["received"]["bytes"], 300 * result["received"]["packets"])

    def test_frames_that_never_come_back_are_lost(self):
        self.serve("null")
        result = self.bench("--mode=loop", "--verify", seconds=1.5, status=1)
        account = result["account"]
        self.assertGreater(account["lost"], 0)
        self.assertEqual(account["lost"], account["sent"])
        self.assertFalse(result["good"])

    def test_text_for_people(self):
        self.serve()
        done = self.run_ringway("bench", "net", self.socket, "--mode=ping", "--verify", "--runtime=0.2", "--warmup=0")
        self.assertEqual(done.returncode, 0, done.stderr)
        for words in (" Mpps", "latency in us", " 0 lost", "cpu "):
            self.assertIn(words, done.stdout)


class BenchNetErrors(BenchNetCase):

    def test_nothing_there(self):
        self.assert_fails("there is nothing at", "bench", "net", self.socket)

    def test_a_back_end_that_never_answers(self):
        self.start_fake(lambda connection: time.sleep(2))
        self.assert_fails("(an answer may take 0.3 s)", "bench", "net", self.socket, "--timeout=0.3")

    def test_options_that_make_no_sense(self):
        for options, sentence in ((["--size=10"], "60 to 65536"), (["--size=x"], "not a size"), (["--mode=up"], "--mode"),
                                  (["--mode=pair"], "two sockets"), (["--mode=tx", "--verify"], "frames that arrive"),
                                  (["--queues=0"], "--queues"), (["--buffer=10"], "--buffer")):
            with self.subTest(options=options):
                self.assert_fails(sentence, "bench", "net", self.socket, *options)
        self.assert_fails("for --mode=pair", "bench", "net", self.socket, self.socket)

    def test_a_back_end_that_takes_no_MTU(self):
        self.start(peers.RINGWAY, "serve", "blk", f"--socket-path={self.socket}", "--memory=1M")
        self.assert_fails("takes no MTU", "bench", "net", self.socket, "--mtu=1500")

    def test_a_back_end_with_too_few_queues(self):
        self.serve("null", "--queues=2")
        self.assert_fails("fewer queues than asked for", "bench", "net", self.socket, "--queues=9")

    def test_a_back_end_with_one_pair_of_queues(self):
        self.serve("null")
        self.assert_fails("the back-end has one pair of queues", "bench", "net", self.socket, "--queues=2")


if __name__ == "__main__":
    unittest.main()
