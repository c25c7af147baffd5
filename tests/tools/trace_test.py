"""ringway trace and ringway proxy between real front-ends and back-ends."""

import json
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import time
import unittest

import peers
from peers import GET_FEATURES, GET_PROTOCOL_FEATURES

ROOT = pathlib.Path(__file__).resolve().parents[2]
DISSECTOR = ROOT / "share" / "ringway" / "vhost_user.lua"
SET_MEM_TABLE, SET_VRING_KICK = 5, 12


class Between(peers.Case):
    """Tests with `ringway trace` or `ringway proxy` at self.front, in front of the back-end at self.socket."""

    def setUp(self):
        super().setUp()
        self.front = self.directory / "front"

    def start_between(self, kind, *options, output=None, front=None, back=None):
        front = front or self.front
        self.output = self.directory / f"{front.name}.out"
        self.errors = self.directory / f"{front.name}.err"
        with open(output or self.output, "wb") as out, open(self.errors, "wb") as errors:
            process = subprocess.Popen([peers.RINGWAY, kind, front, back or self.socket, *map(str, options)],
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        self.addCleanup(self.end, process)
        deadline = time.monotonic() + 20
        while not front.is_socket():
            if process.poll() is not None or time.monotonic() > deadline:
                self.fail(f"ringway {kind} does not listen: {self.errors.read_text()}")
            time.sleep(0.02)
        return process

    def stop(self, process, status=0):
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10), status, self.errors.read_text())

    def lines(self):
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def wait_for(self, condition, what):
        deadline = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def connect(self, path=None):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(str(path or self.front))
        self.addCleanup(connection.close)
        return connection

    def bench(self, *options, path=None):
        return self.json_of("bench", "blk", path or self.front, "--runtime=0.3", "--warmup=0", "--size=4M", "--verify",
                            "--rw=randrw", *options)

    def cpu_seconds(self, process):
        # The CPU clock of another process, as clock_getcpuclockid(3) composes it.
        return time.clock_gettime((~process.pid << 3) | 2)


class Trace(Between):

    def check_conversation(self):
        trace = self.start_between("trace", "--json", "--explain")
        self.assertEqual(self.run_ringway("probe", self.front).returncode, 0)
        self.assertEqual(self.bench()["errors"], [])
        self.stop(trace)
        self.assertFalse(self.front.exists(), "the socket stays behind")
        messages = [line for line in self.lines() if "message" in line]
        self.assertTrue(all(message["complete"] for message in messages))
        self.assertLessEqual({"GET_FEATURES", "SET_FEATURES", "SET_VRING_ADDR", "SET_VRING_KICK", "GET_VRING_BASE"},
                             {message["name"] for message in messages})
        replies = [message for message in messages if message["reply"]]
        self.assertTrue(replies)
        self.assertTrue(all("answers" in reply and reply["reply_seconds"] >= 0 for reply in replies))
        kicks = [message for message in messages if message["name"] == "SET_VRING_KICK" and not message["reply"]]
        self.assertEqual({kick["fds"][0]["kind"] for kick in kicks}, {"eventfd"})
        return [line for line in self.lines() if "finding" in line]

    def test_ringway_behind_it(self):
        self.start_ringway("--memory=64M")
        self.assertEqual(self.check_conversation(), [])

    def test_qemu_storage_daemon_behind_it(self):
        self.start_qemu()
        findings = self.check_conversation()
        # The probe looks for the end of the configuration space, so some of it is refused.
        self.assertLessEqual({(f["name"], f["level"]) for f in findings}, {("GET_CONFIG", "odd")})

    def test_memory_and_eventfds_that_arrive_are_those_that_were_sent(self):
        received = []

        def keep_fds(connection):
            while True:
                data, fds, _, _ = socket.recv_fds(connection, 4096, 16)
                if not data:
                    return
                received.extend(fds)

        self.start_fake(keep_fds)
        self.start_between("trace")
        memory = os.memfd_create("memory")
        os.ftruncate(memory, 4096)
        kick = os.eventfd(0)
        connection = self.connect()
        table = struct.pack("=III", SET_MEM_TABLE, 1, 40) + struct.pack("=IIQQQQ", 1, 0, 0, 4096, 0, 0)
        socket.send_fds(connection, [table], [memory])
        socket.send_fds(connection, [struct.pack("=IIIQ", SET_VRING_KICK, 1, 8, 0)], [kick])
        self.wait_for(lambda: len(received) == 2, "file descriptors did not arrive")
        self.assertTrue(os.path.samestat(os.fstat(received[0]), os.fstat(memory)))
        os.eventfd_write(kick, 5)
        self.assertTrue(select.select([received[1]], [], [], 5)[0], "the kick does not arrive")
        self.assertEqual(os.eventfd_read(received[1]), 5)
        for fd in (*received, memory, kick):
            os.close(fd)

    def test_requests_of_the_driver_cost_the_tracer_nothing(self):
        self.start_ringway("--memory=64M")
        trace = self.start_between("trace")
        before = self.cpu_seconds(trace)
        short = self.json_of("bench", "blk", self.front, "--runtime=0.1", "--warmup=0", "--iodepth=1")
        one = self.cpu_seconds(trace) - before
        requests = seconds = 0
        while requests < 100_000 and seconds < 60:
            result = self.json_of("bench", "blk", self.front, "--runtime=3", "--warmup=0")
            requests += result["read"]["requests"]
            seconds += 3
            runs = seconds // 3
        self.assertGreaterEqual(requests, 100_000, short)
        many = self.cpu_seconds(trace) - before - one
        # What remains is the control messages of each run: some milliseconds.
        self.assertLess(many, runs * max(10 * one, 0.05))

    def test_a_back_end_that_is_restarted_serves_the_next_front_end(self):
        serve = self.start_ringway("--memory=1M")
        trace = self.start_between("trace")
        connection = self.connect()
        connection.sendall(struct.pack("=III", GET_FEATURES, 1, 0))
        self.assertEqual(len(connection.recv(20, socket.MSG_WAITALL)), 20)
        serve.terminate()
        serve.wait()
        self.assertEqual(connection.recv(1), b"", "the front-end is not told that its back-end has gone")
        turned_away = self.connect()
        self.assertEqual(turned_away.recv(1), b"")
        self.start_ringway("--memory=1M")
        self.assertEqual(self.run_ringway("probe", self.front).returncode, 0)
        self.stop(trace)
        self.assertIn("turned away", self.output.read_text())

    def test_a_back_end_that_never_answers_is_told_in_seconds(self):
        self.start_fake(lambda connection: connection.recv(1 << 16) and time.sleep(3))
        trace = self.start_between("trace", "--explain", "--late=0.5")
        connection = self.connect()
        connection.sendall(struct.pack("=III", GET_FEATURES, 1, 0))
        self.wait_for(lambda: "no reply for 0.5 s" in self.output.read_text(), "nothing was said")
        self.stop(trace)

    def test_late_is_about_replies_and_does_not_cut_messages(self):
        self.start_fake(lambda connection: connection.recv(1 << 16) and time.sleep(3))
        trace = self.start_between("trace", "--json", "--late=0.05")
        connection = self.connect()
        message = struct.pack("=IIIQ", 2, 1, 8, 5)
        connection.sendall(message[:15])
        time.sleep(0.5)
        connection.sendall(message[15:])
        self.wait_for(lambda: any("message" in line for line in self.lines()), "the message is not told")
        self.stop(trace)
        told = [line for line in self.lines() if "message" in line]
        self.assertEqual([line["name"] for line in told], ["SET_FEATURES"])
        self.assertTrue(told[0]["complete"])

    def test_it_ends_cleanly_when_its_terminal_does(self):
        self.start_ringway("--memory=1M")
        trace = self.start_between("trace")
        trace.send_signal(signal.SIGHUP)
        self.assertEqual(trace.wait(10), 0, self.errors.read_text())
        self.assertFalse(self.front.exists(), "the socket stays behind")

    def test_a_front_end_that_leaves_while_nobody_takes_its_messages_costs_no_time(self):
        self.start_fake(lambda connection: time.sleep(3))
        trace = self.start_between("trace", output="/dev/null")
        connection = self.connect()
        connection.setblocking(False)
        quiet = 0
        while quiet < 10:  # until the tap takes no more
            try:
                connection.send(struct.pack("=III", 3, 1, 0) * 256)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
        connection.close()
        time.sleep(0.1)
        before = self.cpu_seconds(trace)
        time.sleep(1)
        self.assertLess(self.cpu_seconds(trace) - before, 0.3)
        self.stop(trace)

    def test_what_is_no_vhost_user_passes_and_is_told(self):
        self.start_fake(lambda connection: connection.sendall(b"HTTP/1.0 400 what?\r\n\r\n" * 2))
        trace = self.start_between("trace", "--explain")
        connection = self.connect()
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(connection.recv(44, socket.MSG_WAITALL), b"HTTP/1.0 400 what?\r\n\r\n" * 2)
        connection.close()
        self.wait_for(lambda: "is this vhost-user?" in self.output.read_text(), "nothing was said")
        self.stop(trace)


class TraceFiles(Between):

    def dissect(self, file, *fields):
        done = subprocess.run(["tshark", "-X", f"lua_script:{DISSECTOR}", "-r", file, "-T", "fields", "-E", "separator=|",
                               "-E", "aggregator=;", *(word for field in fields for word in ("-e", field))],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("Lua Error", done.stdout + done.stderr)
        return [line.split("|") for line in done.stdout.splitlines()]

    def test_wireshark_reads_what_json_says(self):
        self.start_ringway("--memory=64M")
        pcap = self.directory / "trace.pcapng"
        trace = self.start_between("trace", "--json", f"--pcap={pcap}")
        self.bench()
        self.wait_for(lambda: "ended" in self.output.read_text(), "the session does not end")
        self.stop(trace)
        messages = [line for line in self.lines() if "message" in line]
        packets = self.dissect(pcap, "vhost_user.message", "vhost_user.name", "vhost_user.id", "vhost_user.flags.reply",
                               "vhost_user.answers", "vhost_user.field", "vhost_user.fd")
        self.assertEqual(len(packets), len(messages))
        for packet, message in zip(packets, messages):
            number, name, request, reply, answers, fields, fds = packet
            self.assertEqual(int(number), message["message"])
            self.assertEqual(name, message["name"])
            self.assertEqual(int(request), message["id"])
            self.assertEqual(reply in ("1", "True"), message["reply"])
            self.assertEqual(answers, str(message.get("answers", "")))
            self.assertEqual(len(fds.split(";")) if fds else 0, len(message["fds"]))
            shown = dict(field.split(" ", 1) for field in fields.split(";") if field)
            for key in ("ring", "size", "base", "descriptors", "guest", "queues", "enable"):
                if key in message["fields"] and name != "SET_MEM_TABLE":
                    self.assertEqual(shown[key].split()[0], str(message["fields"][key]), f"{name} {key}")

    def test_wireshark_knows_every_message(self):
        self.start_fake(lambda connection: connection.recv(1 << 20) and time.sleep(1))
        pcap = self.directory / "trace.pcapng"
        trace = self.start_between("trace", "--json", f"--pcap={pcap}")
        connection = self.connect()
        sizes = {2: 8, 5: 40, 8: 8, 9: 40, 10: 8, 22: 32, 24: 20, 31: 24, 37: 40, 41: 16, 42: 8}
        for request in range(1, 46):
            size = sizes.get(request, 0)
            connection.sendall(struct.pack("=III", request, 1, size) + bytes(range(1, size + 1)))
        self.wait_for(lambda: sum("message" in line for line in self.lines()) == 45, "messages are missing")
        connection.close()
        self.stop(trace)
        names = [line["name"] for line in self.lines() if "message" in line]
        self.assertEqual([packet[0] for packet in self.dissect(pcap, "vhost_user.name")], names)

    def test_findings_are_comments_of_packets(self):
        self.start_ringway("--memory=1M")
        pcap = self.directory / "trace.pcapng"
        trace = self.start_between("trace", "--explain", f"--pcap={pcap}")
        connection = self.connect()
        connection.sendall(struct.pack("=IIIII", 8, 1, 8, 0, 0))  # SET_VRING_NUM of no entries
        self.assertEqual(connection.recv(1), b"")
        self.wait_for(lambda: "has left" in self.output.read_text(), "the session does not end")
        self.stop(trace)
        self.assertIn("ring size is out of range", self.dissect(pcap, "frame.comment")[0][0])
        self.assertIn("ring size is out of range", self.output.read_text())

    def test_a_disk_that_is_full_from_the_beginning(self):
        self.start_ringway("--memory=1M")
        done = self.run_ringway("trace", self.front, self.socket, "--pcap=/dev/full")
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write /dev/full: No space left on device", done.stderr)
        self.assertFalse(self.front.exists(), "the socket stays behind")

    def test_a_file_that_cannot_be_written_is_not_left_behind(self):
        self.start_ringway("--memory=1M")
        pcap = self.directory / "trace.pcapng"
        command = ["prlimit", "--fsize=10", peers.RINGWAY, "trace", self.front, self.socket, f"--pcap={pcap}"]
        for there in (False, True):
            if there:
                pcap.touch()
            # SIGXFSZ stays ignored, as Python has it.
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10,
                                  restore_signals=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(f"cannot write {pcap}", done.stderr)
            self.assertEqual(pcap.exists(), there, "only a file that was made goes")

    def test_standard_output_on_a_full_disk_does_not_disturb_the_traffic(self):
        self.start_ringway("--memory=64M")
        trace = self.start_between("trace", output="/dev/full")
        self.assertEqual(self.bench()["errors"], [])
        self.assertEqual(trace.wait(10), 1)
        self.assertIn("cannot write standard output: No space left on device", self.errors.read_text())
        self.assertFalse(self.front.exists(), "the socket stays behind")

    def test_a_disk_that_fills_up_does_not_disturb_the_traffic(self):
        folder = self.directory / "small"
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder], capture_output=True,
                          check=False).returncode != 0:
            self.skipTest("a tmpfs cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        self.start_ringway("--memory=64M")
        trace = self.start_between("trace", f"--pcap={folder}/trace.pcapng")
        result = self.json_of("bench", "blk", self.front, "--runtime=0.2", "--warmup=0", "--queues=1")
        self.assertEqual(result["errors"], [])
        for _ in range(10):
            if trace.poll() is None:
                self.run_ringway("probe", self.front)
        self.assertEqual(trace.wait(10), 1)
        self.assertIn(f"cannot write {folder}/trace.pcapng: No space left on device", self.errors.read_text())
        self.assertTrue(self.dissect(folder / "trace.pcapng", "vhost_user.name"), "what was written cannot be read")

    def test_a_reader_that_leaves_ends_it_when_nobody_is_disturbed(self):
        self.start_ringway("--memory=1M")
        reader, writer = os.pipe()
        trace = subprocess.Popen([peers.RINGWAY, "trace", self.front, self.socket], stdin=subprocess.DEVNULL, stdout=writer,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, trace)
        os.close(writer)
        os.close(reader)
        self.wait_for(self.front.is_socket, "it does not listen")
        self.assertEqual(self.run_ringway("probe", self.front).returncode, 0)
        self.assertEqual(trace.wait(10), 1)


class TraceDocument(Between):
    """The examples of docs/trace.md, as they stand there."""

    def setUp(self):
        super().setUp()
        text = (ROOT / "docs" / "trace.md").read_text()
        self.examples = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        (self.directory / "share").symlink_to(ROOT / "share")
        self.front, self.socket = self.directory / "front.sock", self.directory / "back.sock"

    def shell(self, beginning, **options):
        line, = (line for line in self.examples if line.startswith(beginning) and "[" not in line.split("|")[0].split("'")[0])
        path = f"{pathlib.Path(peers.RINGWAY).resolve().parent}:{os.environ['PATH']}"
        process = subprocess.Popen(["sh", "-c", f"exec {line}"], cwd=self.directory, text=True, env=os.environ | {"PATH": path},
                                   stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        self.addCleanup(self.end, process)
        return process

    def trace(self, beginning):
        self.start_ringway("--memory=64M")
        trace = self.shell(beginning, stdout=subprocess.PIPE if ">" not in beginning else None)
        self.wait_for(self.front.is_socket, "it does not listen")
        self.assertEqual(self.run_ringway("probe", self.front).returncode, 0)
        trace.send_signal(signal.SIGTERM)
        trace.communicate(timeout=10)
        self.assertEqual(trace.returncode, 0)

    def output_of(self, beginning):
        process = self.shell(beginning, stdout=subprocess.PIPE)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        return output

    def test_how_long_replies_took(self):
        self.trace("ringway trace front.sock back.sock --json >")
        lines = self.output_of("jq").splitlines()
        self.assertEqual(lines[0].split("\t")[0], "GET_FEATURES")
        self.assertGreaterEqual(float(lines[0].split("\t")[1]), 0)

    def test_tshark(self):
        self.trace("ringway trace front.sock back.sock --pcap")
        self.assertIn("GET_FEATURES reply", self.output_of("tshark"))

    def test_proxy(self):
        self.socket, self.front = self.directory / "disk.sock", self.directory / "vm.sock"
        self.start_ringway("--memory=64M")
        self.shell("ringway proxy vm.sock", stdout=subprocess.DEVNULL)
        self.wait_for(self.front.is_socket, "it does not listen")
        self.assertNotIn("EVENT_IDX", self.json_of("probe", self.front)["features"]["names"])


class Proxy(Between):

    def check_masked(self):
        before = self.json_of("probe", self.socket)
        proxy = self.start_between("proxy", "--mask=EVENT_IDX,RING_PACKED,MQ", "--type=blk",
                                   "--mask-protocol=CONFIGURE_MEM_SLOTS")
        after = self.json_of("probe", self.front)
        text = json.dumps(after["features"])
        self.assertIn("EVENT_IDX", json.dumps(before["features"]))
        for name in "EVENT_IDX", "RING_PACKED", '"MQ"':
            self.assertNotIn(name, text)
        self.assertIn("FLUSH", text)
        self.assertNotIn("CONFIGURE_MEM_SLOTS", json.dumps(after["protocol_features"]))
        self.assertEqual(self.bench()["errors"], [])
        self.stop(proxy)
        self.assertFalse(self.front.exists(), "the socket stays behind")

    def test_ringway_behind_it(self):
        self.start_ringway("--memory=64M", "--queues=2")
        self.check_masked()

    def test_qemu_storage_daemon_behind_it(self):
        self.start_qemu()
        self.check_masked()

    def test_it_offers_what_the_back_end_offers(self):
        self.start_ringway("--memory=64M")
        there = self.json_of("probe", self.socket)
        self.start_between("proxy")
        here = self.json_of("probe", self.front)
        for key in "features", "protocol_features", "queues", "memory_slots", "configuration":
            self.assertEqual(here.get(key), there.get(key))

    def test_two_hosts_and_what_they_have_in_common(self):
        self.start_ringway("--memory=64M")
        common = 0x140000244  # VERSION_1, PROTOCOL_FEATURES, FLUSH, BLK_SIZE, SEG_MAX
        self.start_between("proxy", f"--features={common:x}")
        connection = self.connect()
        connection.sendall(struct.pack("=III", GET_FEATURES, 1, 0))
        offered = struct.unpack("=Q", connection.recv(20, socket.MSG_WAITALL)[12:])[0]
        log_all = 1 << 26  # not the driver's: the proxy leaves it to whoever moves the machine
        self.assertEqual(offered, common | log_all)

    def test_requests_of_the_driver_cost_the_proxy_nothing(self):
        self.start_ringway("--memory=64M")
        proxy = self.start_between("proxy")
        before = self.cpu_seconds(proxy)
        self.json_of("bench", "blk", self.front, "--runtime=0.1", "--warmup=0", "--iodepth=1")
        one = self.cpu_seconds(proxy) - before
        requests = runs = 0
        while requests < 100_000 and runs < 20:
            requests += self.json_of("bench", "blk", self.front, "--runtime=3", "--warmup=0")["read"]["requests"]
            runs += 1
        self.assertGreaterEqual(requests, 100_000)
        self.assertLess(self.cpu_seconds(proxy) - before - one, runs * max(10 * one, 0.05))

    def test_tracer_and_two_proxies_in_a_row(self):
        self.start_ringway("--memory=64M")
        middle, last = self.directory / "middle", self.directory / "last"
        self.start_between("proxy", front=middle)
        self.start_between("trace", front=last, back=middle)
        self.start_between("proxy", back=last)
        self.assertEqual(self.bench()["errors"], [])


class BetweenErrors(Between):

    def test_a_back_end_that_is_not_there(self):
        for kind in "trace", "proxy":
            self.assert_fails("there is nothing at", kind, self.front, self.directory / "nowhere")
            self.assertFalse(self.front.exists())

    def test_a_back_end_that_is_a_file(self):
        (self.directory / "file").write_text("")
        for kind in "trace", "proxy":
            self.assert_fails("is not a socket", kind, self.front, self.directory / "file")
            self.assertFalse(self.front.exists())

    def test_a_socket_that_nobody_serves(self):
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(self.socket))
        for kind in "trace", "proxy":
            self.assert_fails("nobody listens at", kind, self.front, self.socket)

    def test_a_socket_of_another_kind(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(str(self.socket))
            for kind in "trace", "proxy":
                self.assert_fails("is not a stream socket", kind, self.front, self.socket)

    def test_a_place_to_listen_that_cannot_be(self):
        self.start_ringway("--memory=1M")
        for kind in "trace", "proxy":
            self.assert_fails("nowhere", kind, self.directory / "nowhere" / "front", self.socket)

    def test_a_back_end_that_never_answers(self):
        self.start_fake(lambda connection: connection.recv(1) and time.sleep(3))
        begin = time.monotonic()
        self.assert_fails("did not answer within 0.5 s", "proxy", self.front, self.socket, "--timeout=0.5")
        self.assertLess(time.monotonic() - begin, 5)
        self.assertFalse(self.front.exists())

    def test_a_back_end_that_stops_answering(self):
        def talk(connection):
            for request, _, _ in peers.messages(connection):
                if request in (GET_FEATURES, GET_PROTOCOL_FEATURES):
                    peers.reply(connection, request, peers.u64(1 << 30))

        self.start_fake(talk)
        proxy = self.start_between("proxy", "--timeout=0.5")
        connection = self.connect()
        connection.sendall(struct.pack("=III", 11, 1, 8) + bytes(8))  # GET_VRING_BASE
        self.assertEqual(connection.recv(1), b"")
        self.wait_for(lambda: "0.5 s" in self.errors.read_text(), "it is not said how long was waited")
        self.stop(proxy)

    def test_what_does_not_talk_vhost_user(self):
        self.start_fake(lambda connection: connection.sendall(b"HTTP/1.0 400 what?\r\n\r\n"))
        self.assert_fails("does not talk vhost-user", "proxy", self.front, self.socket, "--timeout=2")

    def test_a_hang_up_of_the_terminal_is_ignored(self):
        self.start_ringway("--memory=1M")
        proxy = self.start_between("proxy")
        proxy.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        self.assertEqual(self.run_ringway("probe", self.front).returncode, 0)
        self.stop(proxy)

    def test_features_that_are_not_there(self):
        self.assert_fails("no feature 'NONSENSE'", "proxy", self.front, self.socket, "--mask=NONSENSE")
        self.assert_fails("say --type", "proxy", self.front, self.socket, "--mask=MQ")
        self.assert_fails("--features", "proxy", self.front, self.socket, "--features=xyz")

    def test_a_pipe_that_nobody_reads(self):
        self.start_ringway("--memory=1M")
        os.mkfifo(self.directory / "pipe")
        self.assert_fails("nobody reads from the pipe", "trace", self.front, self.socket, f"--pcap={self.directory}/pipe")
        self.assertFalse(self.front.exists())


if __name__ == "__main__":
    unittest.main()
