"""ringway serve as a program: vhost-user "Backend program conventions"."""

import array
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

import peers
from peers import GET_FEATURES

SET_VRING_NUM = 8


def ask_features(connection):
    connection.sendall(struct.pack("=III", GET_FEATURES, 1, 0))
    return connection.recv(20, socket.MSG_WAITALL)


class ServeCase(peers.Case):

    def connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(str(self.socket))
        self.addCleanup(connection.close)
        return connection

    def assert_ends(self, process, number=signal.SIGTERM):
        begin = time.monotonic()
        process.send_signal(number)
        self.assertEqual(process.wait(10), 0)
        self.assertLess(time.monotonic() - begin, 5)
        self.assertFalse(self.socket.exists(), "the socket stays behind")


class Serve(ServeCase):

    def test_it_stays_in_the_foreground_and_ends_with_0_when_told(self):
        for number in signal.SIGTERM, signal.SIGINT:
            process = self.start_ringway("--memory=1M")
            self.assertEqual(len(ask_features(self.connect())), 20)
            self.assertIsNone(process.poll())
            self.assert_ends(process, number)

    def test_it_ends_with_0_in_the_middle_of_a_message(self):
        process = self.start_ringway("--memory=1M")
        connection = self.connect()
        connection.sendall(struct.pack("=III", SET_VRING_NUM, 1, 8) + b"\0\0\0")
        time.sleep(0.1)
        self.assert_ends(process)

    def test_it_ends_with_0_though_nobody_reads_its_replies(self):
        process = self.start_ringway("--memory=1M")
        connection = self.connect()
        connection.setblocking(False)
        try:
            while True:
                connection.send(struct.pack("=III", GET_FEATURES, 1, 0) * 100)
        except BlockingIOError:
            pass
        self.assert_ends(process)

    def test_a_header_in_the_other_byte_order_ends_the_connection(self):
        self.start_ringway("--memory=1M")
        connection = self.connect()
        connection.sendall(struct.pack(">III", GET_FEATURES, 1, 0))
        self.assertEqual(connection.recv(1), b"")
        self.assertEqual(len(ask_features(self.connect())), 20)

    def test_a_socket_that_is_inherited_and_connected_is_served_once(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(
                [peers.RINGWAY, "serve", "blk", f"--fd={theirs.fileno()}", "--memory=1M"], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(self.end, process)
            theirs.close()
            ours.settimeout(10)
            self.assertEqual(len(ask_features(ours)), 20)
            ours.close()
            self.assertEqual(process.wait(10), 0)

    def test_it_works_without_standard_files(self):
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$0" serve blk --socket-path="$1" --memory=1M <&- >&- 2>&-', peers.RINGWAY, str(self.socket)])
        self.addCleanup(self.end, process)
        deadline = time.monotonic() + 10
        while not self.socket.is_socket() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(len(ask_features(self.connect())), 20)
        self.assert_ends(process)

    def test_file_descriptors_that_are_sent_in_a_loop_are_all_closed(self):
        process = self.start_ringway("--memory=1M")
        connection = self.connect()
        ask_features(connection)
        before = len(os.listdir(f"/proc/{process.pid}/fd"))
        with open("/dev/null", "rb") as null:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * 200))]
            for _ in range(200):
                connection.sendmsg([struct.pack("=III", GET_FEATURES, 1, 0)], rights)
                if not connection.recv(20, socket.MSG_WAITALL):
                    connection = self.connect()
        ask_features(self.connect() if connection.fileno() < 0 else connection)
        self.assertLessEqual(len(os.listdir(f"/proc/{process.pid}/fd")), before + 1)

    def test_ring_sizes_that_are_set_in_a_loop_take_no_memory(self):
        process = self.start_ringway("--memory=1M")
        connection = self.connect()
        ask_features(connection)

        def resident():
            with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * 4096

        before = resident()
        for _ in range(100):
            connection.sendall(struct.pack("=IIIII", SET_VRING_NUM, 1, 8, 0, 32768) * 1000)
            self.assertEqual(len(ask_features(connection)), 20)
        self.assertLess(resident() - before, 4 << 20)


class ServeIdle(ServeCase):
    """What is not asked for anything costs nearly nothing."""

    @staticmethod
    def processor_seconds(process):
        """Of all its threads; the numbers of /proc/PID/stat are too coarse."""
        total = 0
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    @staticmethod
    def resident_bytes(process):
        """Its own, without what it shares with front-ends."""
        resident, shared = (int(re.search(rf"^{name}:\s*(\d+) kB", pathlib.Path(f"/proc/{process.pid}/status").read_text(),
                                          re.MULTILINE).group(1)) for name in ("VmRSS", "RssShmem"))
        return (resident - shared) << 10

    def assert_idle(self, process):
        before = self.processor_seconds(process)
        time.sleep(2)
        self.assertLess(self.processor_seconds(process) - before, 2 * 0.005)
        self.assertLess(self.resident_bytes(process), 16 << 20)

    def test_a_device_that_nobody_uses_and_a_ring_without_requests(self):
        for poller in [], ["--no-io-uring"]:
            process = self.start_ringway("--null=1G", *poller)
            self.assert_idle(process)
            # A driver that stands still: its ring runs, and nothing more comes.
            front_end = subprocess.Popen([peers.RINGWAY, "bench", "blk", str(self.socket), "--runtime=100", "--size=4M"],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(self.end, front_end)
            before = self.processor_seconds(process)
            deadline = time.monotonic() + 10
            while self.processor_seconds(process) - before < 0.05:
                self.assertLess(time.monotonic(), deadline, "no request comes")
                time.sleep(0.02)
            front_end.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            self.assert_idle(process)
            self.end(front_end)
            self.assert_ends(process)

    def assert_becomes_idle(self, process):
        deadline = time.monotonic() + 30
        while True:
            before = self.processor_seconds(process)
            time.sleep(2)
            spent = self.processor_seconds(process) - before
            if spent < 2 * 0.005:
                return
            self.assertLess(time.monotonic(), deadline, f"{spent:.3f} s of 2 s are spent on nothing")

    def stand_still(self, process, *words):
        """A driver that has sent frames, and has its rings and buffers still there."""
        before = self.processor_seconds(process)
        front_end = subprocess.Popen([peers.RINGWAY, "bench", "net", *map(str, words), "--runtime=100"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, front_end)
        deadline = time.monotonic() + 20
        while self.processor_seconds(process) - before < 0.05:
            self.assertIsNone(front_end.poll())
            self.assertLess(time.monotonic(), deadline, "no frame comes")
            time.sleep(0.02)
        front_end.send_signal(signal.SIGSTOP)

    def test_networks_whose_drivers_stand_still(self):
        ports = ["null", "loop", "switch", "switch"]
        if os.geteuid() == 0 and os.access("/dev/net/tun", os.R_OK | os.W_OK):
            ports.append(f"tap:name=rw{os.getpid()}")
        for poller in "", "no-io-uring = true\n":
            sockets = [self.directory / f"net{index}" for index in range(len(ports))]
            config = self.directory / "config.toml"
            config.write_text(poller + "workers = 2\n" + "".join(
                f'[[device]]\ntype = "net"\nsocket-path = "{path}"\nport = "{port}"\n' for path, port in zip(sockets, ports)))
            self.socket = sockets[-1]  # the last that listens
            process = self.start(peers.RINGWAY, "serve", f"--config={config}")
            self.assert_becomes_idle(process)
            self.stand_still(process, sockets[0], "--mode=tx")
            self.stand_still(process, sockets[1], "--mode=loop", "--packed")
            self.stand_still(process, sockets[2], sockets[3], "--mode=pair")
            if len(ports) > 4:
                self.stand_still(process, sockets[4], "--mode=tx")
            self.assert_becomes_idle(process)
            self.assert_ends(process)

    def test_five_hundred_devices_start_within_five_seconds_and_take_little_memory(self):
        one = self.start_ringway("--null=1G")
        of_one = self.resident_bytes(one)
        self.assert_ends(one)
        sockets = [self.directory / f"s{index}" for index in range(500)]
        config = self.directory / "config.toml"
        config.write_text("".join(f'[[device]]\nsocket-path = "{path}"\nnull = "1G"\n' for path in sockets))
        begin = time.monotonic()
        process = subprocess.Popen([peers.RINGWAY, "serve", f"--config={config}"], stdin=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, process)
        while not all(path.is_socket() for path in sockets):
            self.assertLess(time.monotonic() - begin, 5)
            time.sleep(0.01)
        self.assertLess(self.resident_bytes(process) - of_one, 499 << 20)
        for self.socket in sockets[0], sockets[-1]:
            self.assertEqual(len(ask_features(self.connect())), 20)
        self.assert_ends(process)


class ServeHungDisk(peers.Case):
    """A disk whose storage answers no more: a FUSE file whose daemon is stopped."""

    def setUp(self):
        super().setUp()
        if not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0:
            self.skipTest("may not mount FUSE files")
        image, disk = self.directory / "image", self.directory / "disk"
        for path in image, disk:
            path.touch()
        os.truncate(image, 64 << 20)
        self.daemon = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=disk,filename={image}", "--export",
             f"type=fuse,id=export,node-name=disk,mountpoint={disk},writable=on"], stdin=subprocess.DEVNULL)
        self.addCleanup(self.end_daemon, disk)
        deadline = time.monotonic() + 20
        while disk.stat().st_size == 0:
            self.assertLess(time.monotonic(), deadline, "the FUSE file does not come")
            time.sleep(0.02)
        self.healthy = self.directory / "healthy"
        config = self.directory / "config.toml"
        config.write_text(f'[[device]]\nsocket-path = "{self.socket}"\nblk-file = "{disk}"\n'
                          f'[[device]]\nsocket-path = "{self.healthy}"\nmemory = "1M"\n')
        self.process = self.start(peers.RINGWAY, "serve", f"--config={config}")
        self.addCleanup(self.daemon.send_signal, signal.SIGCONT)

    def end_daemon(self, disk):
        subprocess.run(["umount", "--lazy", disk], check=False)
        self.end(self.daemon)

    def hang(self):
        """Requests are under way that do not end."""
        front_end = subprocess.Popen([peers.RINGWAY, "bench", "blk", str(self.socket), "--rw=randwrite", "--runtime=100"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, front_end)
        time.sleep(1)
        self.daemon.send_signal(signal.SIGSTOP)
        time.sleep(0.3)

    def test_others_are_served_and_it_ends_when_the_disk_comes_back(self):
        self.hang()
        self.json_of("bench", "blk", self.healthy, "--runtime=0.5")
        self.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        self.assertIsNone(self.process.poll(), "it ended before its requests had")
        self.daemon.send_signal(signal.SIGCONT)
        self.assertEqual(self.process.wait(10), 0)


class ServePostcopy(ServeCase):
    """A guest whose memory is still on another host, and a front-end that dies before it has sent it."""

    MEMORY = 1 << 20
    READ_INTO = 0x40000  # a page that never comes
    USER, GUEST = 0x7000_0000_0000, 0x10_0000

    def send(self, request, payload=b"", fds=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.connection.sendmsg([struct.pack("=III", request, 1, len(payload)) + payload], rights)

    def answer(self):
        header, fds, *_ = socket.recv_fds(self.connection, 12, 4)
        size = struct.unpack("=III", header)[2]
        return self.connection.recv(size, socket.MSG_WAITALL) if size else b"", fds

    def guest_memory(self):
        """One read, of which all is here but the page that it goes to."""
        memory = os.memfd_create("guest")
        os.ftruncate(memory, self.MEMORY)
        self.addCleanup(os.close, memory)
        header, status = 0x3000, 0x4000
        descriptors = ((header, 16, 1, 1), (self.READ_INTO, 512, 3, 2), (status, 1, 2, 0))
        table = b"".join(struct.pack("=QIHH", self.GUEST + at, length, flags, after) for at, length, flags, after in descriptors)
        for at, content in ((0, table), (0x1000, struct.pack("=HHH", 0, 1, 0)), (0x2000, bytes(4096)), (header, bytes(4096)),
                            (status, b"\xff" * 4096)):
            os.pwrite(memory, content.ljust(4096, b"\0"), at)
        return memory

    def begin(self, memory):
        """Up to where the ring runs, and the read waits for its page."""
        region = struct.pack("=QQQQ", self.GUEST, self.MEMORY, self.USER, 0)
        self.connection = self.connect()
        self.send(3)  # SET_OWNER
        self.send(16, peers.u64(1 << 8))  # SET_PROTOCOL_FEATURES: PAGEFAULT
        self.send(2, peers.u64(1 << 32 | 1 << 30))  # SET_FEATURES
        self.send(28)  # POSTCOPY_ADVISE
        _, fds = self.answer()
        if not fds:
            self.skipTest("no userfaultfd here")
        self.addCleanup(os.close, fds[0])
        self.send(29)  # POSTCOPY_LISTEN
        self.send(5, struct.pack("=II", 1, 0) + region, [memory])  # SET_MEM_TABLE
        self.answer()
        self.send(5, struct.pack("=II", 0, 0))
        events = [os.eventfd(1), os.eventfd(0)]
        for event in events:
            self.addCleanup(os.close, event)
        self.send(8, struct.pack("=II", 0, 8))  # SET_VRING_NUM
        self.send(10, struct.pack("=II", 0, 0))  # SET_VRING_BASE
        self.send(9, struct.pack("=IIQQQQ", 0, 0, self.USER, self.USER + 0x2000, self.USER + 0x1000, 0))  # SET_VRING_ADDR
        self.send(13, peers.u64(0), [events[1]])  # SET_VRING_CALL
        self.send(12, peers.u64(0), [events[0]])  # SET_VRING_KICK
        self.send(18, struct.pack("=II", 0, 1))  # SET_VRING_ENABLE

    def test_a_session_that_waits_for_a_page_ends_when_its_front_end_dies(self):
        process = self.start_ringway("--memory=1M", "--postcopy")
        self.begin(self.guest_memory())
        time.sleep(0.2)
        self.send(11, struct.pack("=II", 0, 0))  # GET_VRING_BASE: waits for the read
        self.connection.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            self.connection.recv(1)
        self.connection.close()
        self.json_of("bench", "blk", self.socket, "--runtime=0.1", "--warmup=0")
        self.assert_ends(process)


@unittest.skipUnless("JUMPING_CLOCK" in os.environ, "needs the library of tests/tools/jumping_clock.cc")
class ServeJumpingClock(peers.Case):
    """The wall clock jumps by years, back and forth, at every look."""

    def setUp(self):
        super().setUp()
        os.environ["LD_PRELOAD"] = os.environ["JUMPING_CLOCK"]
        self.addCleanup(os.environ.pop, "LD_PRELOAD")

    def test_the_clock_does_jump(self):
        code = "import time; print(int(abs(time.time() - time.time()) > 1e7))"
        done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "1\n")

    def test_serving_measuring_and_ending_take_the_time_that_they_should(self):
        for poller in [], ["--no-io-uring"]:
            process = self.start_ringway("--memory=4M", *poller)
            begin = time.monotonic()
            result = self.json_of("bench", "blk", self.socket, "--rw=randrw", "--iodepth=4", "--runtime=1", "--verify")
            self.assertLess(time.monotonic() - begin, 15)
            self.assertTrue(0.9 < result["seconds"] < 5, result)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(10), 0)

    def test_a_message_that_is_never_completed_is_waited_for_neither_too_short_nor_for_ever(self):
        self.start_ringway("--memory=1M")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self.socket))
            connection.sendall(b"abc")
            begin = time.monotonic()
            connection.settimeout(60)
            self.assertEqual(connection.recv(1), b"")
            self.assertTrue(5 < time.monotonic() - begin < 20)


class ServeSupervised(ServeCase):
    """--restart-on-failure, and what systemd and the like are told."""

    def server_of(self, supervisor):
        children = pathlib.Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
        deadline = time.monotonic() + 10
        while not (pids := children.read_text().split()):
            self.assertLess(time.monotonic(), deadline, "there is no server")
            time.sleep(0.005)
        return int(pids[0])

    def test_a_server_that_is_killed_is_started_again_behind_the_same_socket(self):
        supervisor = self.start_ringway("--memory=1M", "--restart-on-failure")
        inode = self.socket.stat().st_ino
        for _ in range(5):
            with self.connect() as before:
                self.assertEqual(len(ask_features(before)), 20)
                server = self.server_of(supervisor)
                os.kill(server, signal.SIGKILL)
                while server == self.server_of(supervisor):
                    time.sleep(0.005)
            # Nobody is refused meanwhile: who connects waits.
            with self.connect() as after:
                self.assertEqual(len(ask_features(after)), 20)
        self.assertEqual(self.socket.stat().st_ino, inode)
        self.assert_ends(supervisor)

    def test_a_server_goes_with_its_supervisor(self):
        supervisor = self.start_ringway("--memory=1M", "--restart-on-failure")
        server = self.server_of(supervisor)
        supervisor.kill()
        supervisor.wait()
        deadline = time.monotonic() + 10
        while pathlib.Path(f"/proc/{server}").exists():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_a_server_that_cannot_start_is_not_started_again_and_again(self):
        done = subprocess.run([peers.RINGWAY, "serve", "blk", f"--socket-path={self.socket}", "--blk-file=/nowhere",
                               "--restart-on-failure"], capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere", done.stderr)
        self.assertFalse(self.socket.exists())

    def notified(self, variables, *options):
        """Starts it with NOTIFY_SOCKET, and returns the process and what it says there."""
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.settimeout(10)
        told.bind(str(self.directory / "notify"))
        self.addCleanup(told.close)
        os.environ.update({"NOTIFY_SOCKET": str(self.directory / "notify"), **variables})
        try:
            process = self.start_ringway("--memory=1M", *options)
        finally:
            for name in ("NOTIFY_SOCKET", *variables):
                del os.environ[name]
        return process, told

    def test_a_manager_is_told_when_it_is_ready_and_when_it_stops(self):
        process, told = self.notified({})
        said, fds, *_ = socket.recv_fds(told, 4096, 4)
        self.assertEqual(said, f"FDSTORE=1\nFDNAME={self.socket}\n".encode())
        self.assertEqual(len(fds), 1)
        kept = socket.socket(fileno=fds[0])
        self.addCleanup(kept.close)
        self.assertEqual(told.recv(4096), b"READY=1\n")
        self.assertEqual(len(ask_features(self.connect())), 20)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10), 0)
        self.assertEqual(told.recv(4096), b"STOPPING=1\n")
        # It gets it back when it is started again.
        self.activate(kept, str(self.socket))
        self.assertEqual(len(ask_features(self.connect())), 20)

    def test_a_watchdog_is_told_while_the_workers_work(self):
        process, told = self.notified({"WATCHDOG_USEC": "300000"})
        beats = 0
        begin = time.monotonic()
        while time.monotonic() < begin + 2:
            beats += told.recv(4096) == b"WATCHDOG=1\n"
        self.assertGreaterEqual(beats, 5)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10), 0)

    def activate(self, listening, name="ringway-blk@x.socket"):
        """Starts it as a manager does that has this socket, and a name for it."""
        program = ("import os, sys\nos.dup2(int(sys.argv[1]), 3)\nos.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), "
                   "LISTEN_FDNAMES=sys.argv[2])\nos.execv(sys.argv[3], sys.argv[3:])")
        process = subprocess.Popen([sys.executable, "-c", program, str(listening.fileno()), name, peers.RINGWAY, "serve", "blk",
                                    f"--socket-path={self.socket}", "--memory=1M"], pass_fds=[listening.fileno()],
                                   stdin=subprocess.DEVNULL)
        self.addCleanup(self.end, process)
        return process

    def test_a_socket_that_was_opened_before_is_served(self):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listening.close)
        listening.bind(str(self.socket))
        listening.listen(8)
        for _ in range(2):
            waiting = self.connect()
            process = self.activate(listening)
            self.assertEqual(len(ask_features(waiting)), 20)
            waiting.close()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(10), 0)
            self.assertTrue(self.socket.exists(), "it is not ours to remove")


class ServeCounters(peers.Case):
    """SIGUSR1."""

    def counters(self, process):
        """What the next report says, by name: counters by theirs."""
        log = self.directory / "log"
        before = len(re.findall("counters of", log.read_text()))
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while len(lines := re.findall(r"counters of (.*): (\{.*\})$", log.read_text(), re.MULTILINE)) == before:
            self.assertLess(time.monotonic(), deadline, log.read_text())
            time.sleep(0.02)
        time.sleep(0.05)
        lines = re.findall(r"counters of (.*): (\{.*\})$", log.read_text(), re.MULTILINE)
        return {name: json.loads(counted) for name, counted in lines[before:]}

    def test_a_device_tells_what_it_has_passed_on_and_dropped(self):
        process = self.start(peers.RINGWAY, "serve", "net", f"--socket-path={self.socket}", "--port=switch:name=a")
        self.assertEqual(self.counters(process)[str(self.socket)]["frames sent"], 0)
        result = self.json_of("bench", "net", self.socket, "--mode=tx", "--runtime=0.2", "--warmup=0")
        counted = self.counters(process)
        self.assertEqual(list(counted), [str(self.socket)])
        counted = counted[str(self.socket)]
        self.assertGreater(counted["frames sent"], 100)
        self.assertEqual(counted["bytes sent"], 64 * counted["frames sent"])
        self.assertGreaterEqual(counted["frames sent"], result["sent"]["packets"])
        self.assertEqual(counted["frames received"], 0)
        self.assertEqual(self.counters(process)[str(self.socket)], counted)

    def test_a_switch_tells_of_its_uplinks(self):
        other = self.directory / "other"
        process = self.start(peers.RINGWAY, "serve", "switch", f"--socket-path={self.socket}", f"--socket-path={other}",
                             f"--uplink=pcap:write={self.directory / 'capture'}")
        counted = self.counters(process)
        self.assertEqual(sorted(counted), sorted([str(self.socket), str(other),
                                                  f"switch, pcap:write={self.directory / 'capture'}"]))

    def test_settings_of_a_file_hold_for_the_ports_of_its_switch(self):
        other, config = self.directory / "other", self.directory / "config.toml"
        config.write_text("".join(
            f'[[device]]\ntype = "net"\nsocket-path = "{path}"\nport = "switch:name=sw0,{setting}"\n'
            for path, setting in ((other, "rx-pps=1"), (self.socket, "tx-bps=20000000"))) + '[[switch]]\nname = "sw0"\n')
        begin = time.monotonic()
        process = self.start(peers.RINGWAY, "serve", f"--config={config}")
        self.run_ringway("bench", "net", self.socket, other, "--mode=pair", "--size=1500", "--runtime=0.5", "--warmup=0")
        counted = self.counters(process)
        seconds = time.monotonic() - begin
        sender, receiver = counted[str(self.socket)], counted[str(other)]
        # A burst, what has come since, and one more.
        passed = sender["frames sent"] - sender["sent, dropped: rate"]
        self.assertLessEqual(passed * 1500 * 8, 128 * 1024 * 8 + 20000000 * seconds + 2 * 1500 * 8)
        self.assertLessEqual(receiver["frames received"], 64 + seconds + 1)
        self.assertGreater(sender["sent, dropped: rate"], 0)
        self.assertGreater(receiver["frames received"], 0)
        self.assertGreater(receiver["to receive, dropped: rate"], 0)

    def test_a_server_under_a_supervisor_tells_too(self):
        process = self.start(peers.RINGWAY, "serve", "net", f"--socket-path={self.socket}", "--port=loop",
                             "--restart-on-failure")
        time.sleep(0.3)
        self.assertIn(str(self.socket), self.counters(process))

    def test_a_disk_counts_nothing_and_goes_on(self):
        process = self.start_ringway("--memory=1M")
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
        self.assertIsNone(process.poll())


class ServeErrors(peers.Case):

    def test_a_disk_that_is_not_there(self):
        self.assert_fails("nowhere", "serve", "blk", f"--socket-path={self.socket}", f"--blk-file={self.directory}/nowhere")
        self.assertFalse(self.socket.exists())

    def test_a_place_that_cannot_be(self):
        self.assert_fails("nowhere", "serve", "blk", f"--socket-path={self.directory}/nowhere/socket", "--memory=1M")

    def test_two_places(self):
        done = self.run_ringway("serve", "blk", f"--socket-path={self.socket}", "--fd=3", "--memory=1M")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("fd", done.stderr)

    def test_no_disk_and_two_disks(self):
        for disk in [], ["--memory=1M", "--null=1M"]:
            done = self.run_ringway("serve", "blk", f"--socket-path={self.socket}", *disk)
            self.assertNotEqual(done.returncode, 0, disk)
            self.assertNotEqual(done.stderr, "")

    def test_a_file_descriptor_that_is_no_socket(self):
        done = self.run_ringway("serve", "blk", "--fd=0", "--memory=1M")
        self.assertNotEqual(done.returncode, 0)

    def test_capabilities_are_printed_whatever_else_is_said(self):
        for options in ([], ["--memory=1M"], [f"--socket-path={self.socket}", "--fd=99"], ["--no-such-option=1", "word", "--="],
                        ["--help"], ["--blk-file=/nowhere", "--queues=many"]):
            done = self.run_ringway("serve", "blk", "--print-capabilities", *options)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["type"], "block")
        self.assertFalse(self.socket.exists())

    def test_capabilities_of_a_network_device(self):
        done = self.run_ringway("serve", "net", "--print-capabilities")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["type"], "net")

    def test_a_port_that_does_not_exist_is_told_in_words(self):
        done = self.run_ringway("serve", "net", f"--socket-path={self.socket}", "--port=cable")
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no port 'cable'", done.stderr)

    def test_mistakes_in_networks_are_told_with_their_option(self):
        where = f"--socket-path={self.socket}"
        for sentence, words in {
                f"--socket-path: {self.socket} is there twice": ("switch", where, where),
                "uplink: trunk: '5+' is no list": ("switch", where, "--uplink=switch:trunk=5+"),
                "uplink: switch:name=b: there is no switch 'b'": ("switch", where, "--uplink=switch:name=b"),
                "ageing: must be 1 to": ("switch", where, "--ageing=0"),
                "port: trunk: '5+' is no list": ("net", where, "--port=switch:trunk=5+"),
                "mac: '00:00:00:00:00:00' is the address of nobody": ("net", where, "--port=null", "--mac=00:00:00:00:00:00"),
                "mac: '03:00:00:00:00:01' is the address of a group": ("net", where, "--port=null", "--mac=03:00:00:00:00:01"),
                "--socket-path": ("net", where, where, "--port=null")}.items():
            self.assert_fails(sentence, "serve", *words)
            self.assertFalse(self.socket.exists())


if __name__ == "__main__":
    unittest.main()
