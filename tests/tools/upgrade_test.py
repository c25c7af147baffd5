"""ringway upgrade: a process that serves is replaced by a new one, at work, and nobody notices."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import unittest

import peers

ROUNDS = int(os.environ.get("UPGRADES", "10"))
DISK_BYTES = 32 << 20
SUCCESSOR = pathlib.Path(__file__).parent / "successor.py"
SERVES = re.compile(r"process (\d+) serves \d+ devices? now, after a pause of ([\d.]+) ms")


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Case(peers.Case):
    """A back-end that is upgraded: `pid` is the process that serves now."""

    def serve(self, *options, program=peers.RINGWAY):
        self.process = self.start_ringway(*options, program=program)
        self.pid = self.process.pid
        self.addCleanup(self.end_serving)

    def serve_file(self, *options, program=peers.RINGWAY):
        disk = self.directory / "disk"
        with open(disk, "wb") as file:
            file.truncate(DISK_BYTES)
        self.serve(f"--blk-file={disk}", *options, program=program)

    def end_serving(self):
        if runs(self.pid):
            os.kill(self.pid, signal.SIGKILL)

    def ask(self, *options):
        return self.run_ringway("upgrade", f"--pid={self.pid}", *options)

    def upgrade(self, *options):
        """The pause in ms."""
        before = self.pid
        done = self.ask(*options)
        self.assertEqual(done.returncode, 0, done.stderr + self.log())
        match = SERVES.search(done.stdout)
        self.assertIsNotNone(match, done.stdout)
        self.pid = int(match[1])
        if before == self.process.pid:
            self.assertEqual(self.process.wait(10), 0)
        deadline = time.monotonic() + 10
        while runs(before):
            self.assertLess(time.monotonic(), deadline, "the old process stays")
            time.sleep(0.001)
        return float(match[2])

    def assert_stays(self, sentence, *options):
        done = self.ask(*options)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn(sentence, done.stderr)
        self.assertTrue(runs(self.pid))

    def log(self):
        log = self.directory / "log"
        return log.read_text() if log.exists() else ""

    def start_bench(self, *options):
        bench = subprocess.Popen(
            [peers.RINGWAY, "bench", "blk", str(self.socket), "--rw=randrw", "--iodepth=8", "--verify", "--json",
             "--timeout=20", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        self.addCleanup(self.end, bench)
        self.addCleanup(bench.stdout.close)
        self.addCleanup(bench.stderr.close)
        return bench

    def result_of(self, bench):
        out, err = bench.communicate(timeout=60)
        self.assertEqual(bench.returncode, 0, out + err + self.log())
        return json.loads(out)

    def program(self, text):
        """A program that is no good successor."""
        path = self.directory / "successor"
        path.write_text(text)
        path.chmod(0o755)
        return f"--binary={path}"

    def end_well(self):
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while runs(self.pid):
            self.assertLess(time.monotonic(), deadline, "it does not end")
            time.sleep(0.01)
        self.assertFalse(self.socket.exists(), "the socket stays behind")


class UpgradeUnderLoad(Case):
    """What is read is verified; a request that is lost would time out, one that is answered twice would be seen, and a write
    that is carried out twice is witnessed."""

    def under_load(self, *options, serve=()):
        witness = f"--witness={self.directory / 'witness'}"
        self.serve_file(witness, *serve)
        self.upgrade()  # what a process has that was upgraded, against what it has after many times
        files = open_files(self.pid)
        seconds = 2 + ROUNDS * 0.4
        bench = self.start_bench(f"--runtime={seconds}", "--warmup=0.1", f"--size={DISK_BYTES}", witness, *options)
        time.sleep(0.5)
        pauses = []
        while len(pauses) < ROUNDS:
            pause = self.upgrade()
            if bench.poll() is not None:  # a busy machine may be too slow for all of them
                break
            pauses.append(pause)
            time.sleep(0.02)
        self.assertGreater(len(pauses), 2, "the load ended before the upgrades")
        result = self.result_of(bench)
        pauses.sort()
        slowest = max(side["latency_ns"]["max"] for side in (result["read"], result["write"])) / 1e6
        print(f"{len(pauses)} upgrades {' '.join(options)}: pause median {pauses[len(pauses) // 2]} ms, "
              f"99% {pauses[max(0, len(pauses) * 99 // 100 - 1)]} ms, max {pauses[-1]} ms; slowest request {slowest:.1f} ms",
              flush=True)
        self.assertTrue(result["good"] and not result["errors"], result)
        self.assertGreater(result["verify"]["written"], 0)
        self.assertEqual(result["witness"], {"executed": result["verify"]["written"], "repeated": 0})
        self.json_of("bench", "blk", self.socket, "--runtime=0.1", "--warmup=0")
        self.wait_for_files(files + 1)
        self.end_well()

    def wait_for_files(self, most):
        """What has ended closes its files a little later."""
        deadline = time.monotonic() + 10
        while open_files(self.pid) > most:
            self.assertLess(time.monotonic(), deadline, f"{open_files(self.pid)} open files, not {most}")
            time.sleep(0.01)

    def test_split_rings(self):
        self.under_load()

    def test_packed_rings(self):
        self.under_load("--packed", "--interrupt")

    def test_two_queues_on_two_workers_without_io_uring(self):
        self.under_load("--queues=2", serve=["--queues=2", "--workers=2", "--no-io-uring"])


@unittest.skipUnless("OTHER_RINGWAY" in os.environ, "OTHER_RINGWAY is the path of another build (other_build.py makes one)")
class UpgradeBetweenBuilds(Case):
    """From a program of another commit to this one and back, at work."""

    def there_and_back(self, *options):
        other = os.environ["OTHER_RINGWAY"]
        self.serve_file(program=other)
        bench = self.start_bench("--runtime=5", "--warmup=0.1", *options)
        time.sleep(0.5)
        for program in (peers.RINGWAY, other, peers.RINGWAY):
            self.upgrade(f"--binary={program}")
            self.assertTrue(os.path.samefile(f"/proc/{self.pid}/exe", program))
            time.sleep(0.3)
        self.assertIsNone(bench.poll(), "the load ended before the upgrades")
        result = self.result_of(bench)
        self.assertTrue(result["good"] and not result["errors"], result)
        self.end_well()

    def test_split_rings(self):
        self.there_and_back()

    def test_packed_rings(self):
        self.there_and_back("--packed")


class Upgrade(Case):

    def test_memory_goes_along_if_it_is_shared(self):
        self.serve("--memory=32M", "--shared-memory")
        bench = self.start_bench("--runtime=2", "--size=32M")
        time.sleep(0.8)
        self.upgrade()
        self.result_of(bench)

    def test_memory_that_is_not_shared_is_not_lost(self):
        self.serve("--memory=1M")
        self.assert_stays("is private memory of this process, not shared memory")
        self.json_of("bench", "blk", self.socket, "--runtime=0.1", "--warmup=0")

    def test_a_front_end_that_comes_afterwards_is_served(self):
        self.serve_file()
        self.upgrade()
        self.json_of("bench", "blk", self.socket, "--runtime=0.1", "--warmup=0")
        self.end_well()

    def test_a_connection_that_was_inherited_goes_on_between_two_messages(self):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [peers.RINGWAY, "serve", "blk", f"--fd={theirs.fileno()}", "--null=1M"], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, self.process)
        self.pid = self.process.pid
        self.addCleanup(self.end_serving)
        theirs.close()
        self.addCleanup(ours.close)
        ours.settimeout(10)
        for _ in range(3):
            ours.sendall(peers.struct.pack("=III", peers.GET_FEATURES, 1, 0))
            self.assertEqual(len(ours.recv(20, socket.MSG_WAITALL)), 20)
            self.upgrade()
        ours.close()
        deadline = time.monotonic() + 10
        while runs(self.pid):
            self.assertLess(time.monotonic(), deadline, "it serves on though its only front-end is gone")
            time.sleep(0.01)

    def test_a_bare_signal_is_enough(self):
        self.serve_file()
        self.process.send_signal(signal.SIGUSR2)
        self.assertEqual(self.process.wait(20), 0)
        self.pid = int(re.search(r"process (\d+) serves", self.log())[1])
        self.json_of("bench", "blk", self.socket, "--runtime=0.1", "--warmup=0")

    def test_the_manager_is_told_who_serves(self):
        place = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(place))
            manager.settimeout(10)
            os.environ["NOTIFY_SOCKET"] = str(place)
            self.addCleanup(os.environ.pop, "NOTIFY_SOCKET", None)
            self.serve_file()
            self.upgrade()
            told = b""
            while b"MAINPID" not in told:
                told = manager.recv(4096)
            self.assertIn(f"MAINPID={self.pid}", told.decode())
            # A socket that the manager keeps is served on.
            self.json_of("bench", "blk", self.socket, "--runtime=0.1", "--warmup=0")

    def watched(self):
        """A manager with a watchdog, that hears who speaks."""
        place = self.directory / "notify"
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.bind(str(place))
        manager.settimeout(10)
        for name, value in ("NOTIFY_SOCKET", str(place)), ("WATCHDOG_USEC", "300000"):
            os.environ[name] = value
            self.addCleanup(os.environ.pop, name, None)
        return manager

    def beats_of(self, manager, pid, seconds):
        beats = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            said, control, *_ = manager.recvmsg(4096, 4096)
            speakers = [peers.struct.unpack("=iII", data)[0] for _, kind, data in control if kind == socket.SCM_CREDENTIALS]
            beats += said == b"WATCHDOG=1\n" and speakers == [pid]
        return beats

    def test_the_watchdog_is_fed_during_an_upgrade_and_afterwards(self):
        manager = self.watched()
        self.serve_file()
        slow = self.program("#!/bin/sh\nexec sleep 1000\n")
        asking = threading.Thread(target=self.assert_stays, args=("no message came in time", slow, "--time-to-open=3"))
        asking.start()
        time.sleep(0.5)
        self.assertGreaterEqual(self.beats_of(manager, self.pid, 2), 5)
        asking.join()
        self.upgrade()
        self.assertGreaterEqual(self.beats_of(manager, self.pid, 2), 5)

    def test_an_in_flight_area_goes_along(self):
        """A front-end that tracks what is in flight, an upgrade, and then a crash."""
        self.serve_file()
        bench = self.start_bench("--runtime=5", "--reconnect")
        time.sleep(0.8)
        self.upgrade()
        time.sleep(0.3)
        os.kill(self.pid, signal.SIGKILL)
        time.sleep(0.1)
        self.socket.unlink()
        self.process = self.start_ringway(f"--blk-file={self.directory / 'disk'}")
        self.pid = self.process.pid
        result = self.result_of(bench)
        self.assertTrue(result["good"] and not result["errors"], result)

    def test_many_devices_move_together(self):
        count = 100
        config = self.directory / "config"
        config.write_text("".join(
            f'[[device]]\nsocket-path = "{self.directory}/{i}"\nnull = "1M"\n' for i in range(count)))
        self.socket = self.directory / str(count - 1)
        self.process = self.start(peers.RINGWAY, "serve", f"--config={config}")
        self.pid = self.process.pid
        self.addCleanup(self.end_serving)
        time.sleep(0.3)
        begin = time.monotonic()
        self.upgrade()
        self.assertLess(time.monotonic() - begin, 5)
        for i in range(0, count, 10):
            self.json_of("bench", "blk", self.directory / str(i), "--runtime=0.02", "--warmup=0")


class UpgradeNet(Case):
    """Network devices and switches. What a driver has set and what a port has open goes along."""

    def serve_words(self, *words):
        self.process = self.start(peers.RINGWAY, "serve", *words)
        self.pid = self.process.pid
        self.addCleanup(self.end_serving)

    def bench_net(self, *options):
        bench = subprocess.Popen(
            [peers.RINGWAY, "bench", "net", *options, "--warmup=0", "--json"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        self.addCleanup(self.end, bench)
        self.addCleanup(bench.stdout.close)
        self.addCleanup(bench.stderr.close)
        return bench

    def under_load(self, *options, may_lose=False):
        self.bench_net(*options, "--runtime=0.2").communicate(timeout=60)
        time.sleep(0.2)
        files = open_files(self.pid)
        bench = self.bench_net(*options, f"--runtime={2 + ROUNDS * 0.2}")
        time.sleep(0.5)
        pauses = []
        while len(pauses) < ROUNDS and bench.poll() is None:
            pauses.append(self.upgrade())
        self.assertGreater(len(pauses), 2)
        result = json.loads(bench.communicate(timeout=60)[0]) if may_lose else self.result_of(bench)
        self.assertEqual(result["errors"], [])
        time.sleep(0.2)
        self.assertLessEqual(open_files(self.pid), files + 1)
        pauses.sort()
        print(f"{len(pauses)} upgrades {' '.join(map(str, options))}: pause median {pauses[len(pauses) // 2]} ms, max {pauses[-1]} ms",
              flush=True)
        return result

    def test_what_is_sent_goes_on(self):
        for options in [], ["--packed", "--interrupt"]:
            with self.subTest(options=options):
                self.socket.unlink(missing_ok=True)
                self.serve_words("net", f"--socket-path={self.socket}", "--port=null")
                result = self.under_load(str(self.socket), "--mode=tx", *options)
                self.assertGreater(result["sent"]["packets"], 1000)
                self.end_serving()

    def test_frames_between_two_devices_of_a_switch_go_on(self):
        other = self.directory / "other"
        self.serve_words("switch", f"--socket-path={other}", f"--socket-path={self.socket}", "--workers=2")
        result = self.under_load(str(self.socket), str(other), "--mode=pair", "--verify", may_lose=True)
        account = result["account"]
        self.assertGreater(account["received"], 1000)
        for flaw in ("duplicates", "changed", "foreign"):
            self.assertEqual(account[flaw], 0, account)

    def test_an_address_by_chance_stays(self):
        self.serve_words("net", f"--socket-path={self.socket}", "--port=null")
        config = self.json_of("probe", self.socket)
        self.upgrade()
        self.assertEqual(self.json_of("probe", self.socket)["configuration"], config["configuration"])

    def test_a_port_that_cannot_move_is_served_on(self):
        for port, why in (f"pcap:write={self.directory}/capture", "a port of this kind cannot move"), \
                ("user", "a port of this kind cannot move"):
            with self.subTest(port=port):
                self.socket.unlink(missing_ok=True)
                self.serve_words("net", f"--socket-path={self.socket}", f"--port={port}")
                self.assert_stays(why)
                self.run_ringway("probe", self.socket).check_returncode()
                self.end_serving()

    def test_an_xdp_port_is_served_on(self):
        ours, theirs = f"rwx{os.getpid()}", f"rwy{os.getpid()}"
        made = subprocess.run(["ip", "link", "add", ours, "type", "veth", "peer", "name", theirs], capture_output=True,
                              text=True, check=False)
        if made.returncode:
            self.skipTest(f"no interfaces here: {made.stderr.strip()}")
        self.addCleanup(subprocess.run, ["ip", "link", "delete", ours], check=False)
        for interface in ours, theirs:
            subprocess.run(["ip", "link", "set", interface, "up"], check=True)
        self.serve_words("net", f"--socket-path={self.socket}", f"--port=xdp:interface={ours}")
        self.assert_stays("a port of this kind cannot move")
        self.run_ringway("probe", self.socket).check_returncode()


class UpgradeSupervised(Case):
    """With --restart-on-failure, whoever is asked, the supervisor or its server."""

    def servers(self):
        return [int(pid) for pid in self.children.read_text().split()]

    def one_server(self):
        deadline = time.monotonic() + 10
        while len(found := self.servers()) != 1:
            self.assertLess(time.monotonic(), deadline, f"servers: {found}")
            time.sleep(0.005)
        return found[0]

    def setUp(self):
        super().setUp()
        self.serve_file("--restart-on-failure")
        self.children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children")
        self.served()

    def served(self):
        self.json_of("bench", "blk", self.socket, "--runtime=0.1", "--warmup=0", "--verify")

    def upgrade_by(self, pid, *options):
        done = self.run_ringway("upgrade", f"--pid={pid}", *options)
        self.assertEqual(done.returncode, 0, done.stderr + self.log())
        next_server = int(SERVES.search(done.stdout)[1])
        deadline = time.monotonic() + 10
        while self.servers() != [next_server]:
            self.assertLess(time.monotonic(), deadline, f"servers: {self.servers()}")
            time.sleep(0.005)

    def test_the_next_server_is_supervised(self):
        bench = self.start_bench("--runtime=3", "--reconnect")
        time.sleep(0.8)
        self.upgrade_by(self.pid)
        self.upgrade_by(self.one_server())
        server = self.one_server()
        os.kill(server, signal.SIGKILL)
        result = self.result_of(bench)
        self.assertTrue(result["good"] and not result["errors"], result)
        self.assertNotEqual(self.one_server(), server)
        self.upgrade_by(self.pid)
        self.served()
        self.end_well()

    def test_a_program_that_has_followed_is_started_again_not_the_first(self):
        first = os.readlink(f"/proc/{self.pid}/exe")
        second = self.directory / "second"
        second.write_bytes(pathlib.Path(first).read_bytes())
        second.chmod(0o755)
        self.upgrade_by(self.pid, f"--binary={second}")
        os.kill(self.one_server(), signal.SIGKILL)
        self.served()
        for pid in self.pid, self.one_server():
            self.assertEqual(os.readlink(f"/proc/{pid}/exe"), str(second))
        self.end_well()

    def test_it_goes_with_its_supervisor(self):
        self.upgrade_by(self.pid)
        server = self.one_server()
        os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while runs(server):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_one_that_dies_when_it_had_taken_over_is_a_crash_like_any(self):
        bench = self.start_bench("--runtime=3", "--reconnect")
        time.sleep(0.5)
        done = self.ask(self.program(f"#!/bin/sh\nexec python3 {SUCCESSOR} end-after-go\n"))
        self.assertEqual(done.returncode, 1, done.stdout)
        result = self.result_of(bench)
        self.assertTrue(result["good"] and not result["errors"], result)
        self.assertGreaterEqual(result["reconnects"], 1)
        self.assertTrue(runs(self.pid), "the supervisor")

    def test_one_that_goes_wrong_changes_nothing(self):
        server = self.one_server()
        self.assert_stays("the new program ended with status 3", self.program("#!/bin/sh\nexit 3\n"))
        self.assertEqual(self.one_server(), server)
        self.served()


class UpgradeFails(Case):
    """Whatever the successor does wrong, the old process serves on."""

    def setUp(self):
        super().setUp()
        self.serve_file()
        self.bench = self.start_bench("--runtime=3")
        time.sleep(0.8)

    def assert_served(self):
        self.assertIsNone(self.bench.poll(), "the load ended before the upgrade")
        self.result_of(self.bench)

    def test_a_program_that_is_not_there(self):
        self.assert_stays("cannot be started", f"--binary={self.directory}/nowhere")
        self.assert_served()

    def test_a_program_that_is_none(self):
        self.assert_stays("cannot be started", self.program("no program\n"))
        self.assert_served()

    def test_a_program_that_ends(self):
        self.assert_stays("the new program ended with status 3", self.program("#!/bin/sh\nexit 3\n"))
        self.assert_served()

    def test_a_program_that_crashes(self):
        self.assert_stays("the new program was ended by signal 9", self.program("#!/bin/sh\nkill -9 $$\n"))
        self.assert_served()

    def test_a_program_that_stalls(self):
        self.assert_stays("no message came in time", self.program("#!/bin/sh\nexec sleep 1000\n"), "--time-to-open=1")
        self.assert_served()

    def test_a_program_that_cannot_open_the_disk(self):
        other = self.directory / "other"
        with open(other, "wb") as file:
            file.truncate(DISK_BYTES)
        os.rename(other, self.directory / "disk")
        self.assert_stays("is another file than the one that is served now")
        self.assert_served()

    # The rest speaks the format as far as it must to go wrong.
    def wrong(self, how):
        return self.program(f"#!/bin/sh\nexec python3 {SUCCESSOR} {how}\n")

    def test_a_program_of_another_format(self):
        self.assert_stays("understands format 2 of the hand-over, not 1", self.wrong("another-format"))
        self.assert_served()

    def test_a_program_that_refuses_what_it_hears_of_sessions(self):
        self.assert_stays("does not want to", self.wrong("refuse-sessions"))
        self.assert_served()

    def test_a_program_that_ends_when_guests_have_stopped(self):
        self.assert_stays("", self.wrong("end-before-armed"))
        self.assert_served()

    def test_a_program_that_stalls_when_guests_have_stopped(self):
        self.assert_stays("no message came in time", self.wrong("stall-before-armed"))
        self.assert_served()

    def test_a_program_that_talks_nonsense(self):
        self.assert_stays("", self.wrong("nonsense"))
        self.assert_served()


class UpgradeErrors(Case):

    def assert_ends_soon(self, begin):
        self.assertLess(time.monotonic() - begin, 20)

    def test_two_who_ask_at_once(self):
        self.serve_file()
        begin = time.monotonic()
        asking = [subprocess.Popen([peers.RINGWAY, "upgrade", f"--pid={self.pid}"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True) for _ in range(2)]
        answers = [(*process.communicate(timeout=60), process.returncode) for process in asking]
        self.assert_ends_soon(begin)
        served = [SERVES.search(out) for out, _, status in answers if status == 0]
        self.assertTrue(served, answers)
        self.pid = int(served[-1][1])
        for out, err, status in answers:
            self.assertTrue(status == 0 or "has ended and did not answer" in err or "there is no process" in err, (out, err))

    @unittest.skipIf(os.geteuid(), "only root may make network namespaces")
    def test_a_process_in_another_network_namespace(self):
        self.process = self.start("unshare", "-n", peers.RINGWAY, "serve", "blk", f"--socket-path={self.socket}",
                                  f"--blk-file={__file__}", "--read-only")
        self.pid = self.process.pid
        begin = time.monotonic()
        done = self.ask()
        self.assert_ends_soon(begin)
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"nsenter -n -t {self.pid} ringway upgrade", done.stderr)
        done = subprocess.run(["nsenter", "-n", "-t", str(self.pid), peers.RINGWAY, "upgrade", f"--pid={self.pid}"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.pid = int(SERVES.search(done.stdout)[1])
        self.addCleanup(self.end_serving)

    def test_a_process_that_is_not_there(self):
        process = subprocess.Popen(["true"])
        process.wait()
        done = self.run_ringway("upgrade", f"--pid={process.pid}")
        self.assertEqual(done.returncode, 2)
        self.assertIn("there is no process", done.stderr)

    def test_a_process_that_is_something_else_is_left_alone(self):
        process = subprocess.Popen(["sleep", "100"])
        self.addCleanup(self.end, process)
        done = self.run_ringway("upgrade", f"--pid={process.pid}")
        self.assertEqual(done.returncode, 2)
        self.assertIn("is no ringway serve", done.stderr)
        self.assertIsNone(process.poll())

    def test_a_signal_from_who_does_not_wait_changes_nothing(self):
        self.serve("--memory=1M")
        subprocess.run(["python3", "-c", f"import signal, ctypes; ctypes.CDLL(None).sigqueue({self.pid}, {int(signal.SIGUSR2)}, 7)"],
                       check=True)
        time.sleep(0.3)
        self.assertTrue(runs(self.pid))
        self.assertIn("does not wait for it", self.log())


if __name__ == "__main__":
    unittest.main()
