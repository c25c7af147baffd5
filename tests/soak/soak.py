#!/usr/bin/env python3
"""The killing test: `ringway bench blk --verify --witness --reconnect` keeps what must be on the disk, in a process that
is not killed, while `ringway serve blk` is killed and started again under it, at random instants and at every failpoint.
Receive buffers are given back only by network devices: there receive_buffers.py is the driver.

The last line is the tally; the exit status is 0 only if nothing was lost, repeated or hung, and nobody leaks.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import receive_buffers

FAILPOINT_STATUS = 70
# Failpoints of a start that has something to repair, and what kills in the right moment before.
AFTER = {"split_recover_clearing": "split_publish_shown", "split_recover_cleared": "split_publish_shown",
         "packed_recover_freeing": "packed_publish_shown", "packed_recover_hiding": "packed_take_end"}
GET_FEATURES = struct.pack("=III", 1, 1, 0)


def failpoints():
    """The names, from the one list of them."""
    header = pathlib.Path(__file__).resolve().parents[2] / "src/base/failpoint.h"
    table = re.search(r"failpoint_names = .*?\{(.*?)\}\)", header.read_text(), re.S)
    return re.findall(r'"(\w+)"', table.group(1))


class Soak:

    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ringway-soak-", dir=options.directory))
        self.socket = self.directory / "socket"
        self.disk = self.directory / "disk"
        self.witness = self.directory / "witness"
        with open(self.disk, "wb") as file:
            file.truncate(64 << 20)
        self.names = failpoints()
        self.hits = dict.fromkeys(self.names, 0)
        self.kills = self.requests = self.written = self.redone = self.looked_back = self.lost = self.repeated = self.hung = 0
        self.front_end_kills = self.failures = 0
        self.next = None  # to be armed next
        self.troubles = []
        self.left_out = []  # sentences: what was not tested here
        self.server = None

    # ---- processes

    def serve(self, failpoint=None, extra=()):
        self.start_server(failpoint, ["blk", f"--blk-file={self.disk}", "--queues=2", f"--witness={self.witness}", *extra])

    def start_server(self, failpoint, device):
        environment = dict(os.environ)
        environment.pop("RINGWAY_FAILPOINT", None)
        if failpoint:
            environment["RINGWAY_FAILPOINT"] = failpoint
        with open(self.directory / "log", "ab") as log:
            self.server = subprocess.Popen(
                [self.options.program, "serve", *device, f"--socket-path={self.socket}"],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_for_socket(self, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                    probe.connect(str(self.socket))
                return
            except OSError:
                time.sleep(0.005)
        self.troubles.append("the back-end does not listen")

    def kill_server(self):
        if self.server and self.server.poll() is None:
            self.server.kill()
        if self.server:
            self.server.wait()

    def bench(self, seconds, *options):
        return subprocess.Popen(
            [self.options.program, "bench", "blk", str(self.socket), "--verify", "--rw=randrw", "--rwmixread=30", "--bs=4k",
             "--size=8M", "--warmup=0", f"--runtime={seconds}", "--timeout=30", "--json", f"--witness={self.witness}",
             f"--seed={self.random.getrandbits(40) + 1}", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result_of(self, process):
        """What a bench says at its end, of which the sums are taken; None if it says nothing that makes sense."""
        try:
            out, errors = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.hung += 1
            self.troubles.append("bench did not end")
            return None
        try:
            said = json.loads(out)
        except ValueError:
            self.troubles.append(f"bench says: {errors.strip() or out.strip()}")
            return None
        self.requests += said["read"]["requests"] + said["write"]["requests"]
        self.lost += said["verify"]["wrong"]
        self.hung += said["hung"]
        self.troubles += said["errors"]
        return said

    def account(self, process):
        """Reads what a bench says at its end, which must be that all is well."""
        said = self.result_of(process)
        if said is None:
            return None
        self.written += said["verify"]["written"]
        self.looked_back += said["looked_back"]
        self.redone += said["witness"]["executed"] - said["verify"]["written"]
        self.repeated += said["witness"]["repeated"]
        if not said["good"] and not said["errors"]:
            self.troubles.append(f"bench is not content: {said['verify']['first']} {said['remarks']}")
        return said

    # ---- the back-end is killed

    def next_failpoint(self, packed):
        """The one of this format that was hit least, now and then; else nothing."""
        if self.next:
            armed, self.next = self.next, None
            return armed
        if self.random.random() < 0.4:
            return None
        mine = [name for name in self.names if name.startswith("packed" if packed else "split") and "_give_" not in name]
        least = min(self.hits[name] for name in mine)
        name = self.random.choice([name for name in mine if self.hits[name] == least])
        if name in AFTER:
            self.next = name, 1
            name = AFTER[name]
        count = 1 if "recover" in name else int(10 ** self.random.uniform(0, 3))
        return name, count

    def kill_back_ends(self, packed, until):
        shape = ["--packed"] if packed else []
        shape += self.random.choice([[], ["--no-indirect"]])
        shape += self.random.choice([[], ["--no-event-idx"]])
        shape += self.random.choice([[], [], ["--in-order"]])
        shape += self.random.choice([["--poll"], ["--interrupt"]])
        shape += [f"--queues={self.random.choice([1, 2])}", f"--iodepth={self.random.choice([1, 8, 32])}"]
        extra = self.random.choice([[], ["--no-io-uring"], ["--workers=2"]])
        self.kill_server()
        self.next = None
        makes = [name for name in self.names if name.startswith("make")]
        first = self.random.choice([name for name in makes if self.hits[name] == min(self.hits[make] for make in makes)])
        armed = first, 1
        self.serve(f"{first}:1", extra)
        self.wait_for_socket()
        begin = time.monotonic()
        seconds = self.options.run
        bench = self.bench(seconds, "--reconnect", *shape)
        grace = 30  # before its first queue starts the bench has no in-flight area, and nobody to go on with
        while bench.poll() is None and self.kills < until and time.monotonic() < begin + seconds:
            try:
                self.server.wait(grace)
            except subprocess.TimeoutExpired:
                pass
            ended = self.server.poll()
            if ended == FAILPOINT_STATUS and armed:
                self.hits[armed[0]] += 1
            elif ended is not None:
                self.troubles.append(f"the back-end ended by itself with status {ended}: see {self.directory}/log")
                break
            self.kill_server()
            self.kills += 1
            armed = self.next_failpoint(packed)
            self.serve(f"{armed[0]}:{armed[1]}" if armed else None, extra)
            grace = 0.5 if armed else self.random.uniform(0, 0.1)
        # What is armed may still strike while the bench ends.
        deadline = time.monotonic() + 100
        while bench.poll() is None and time.monotonic() < deadline:
            if self.server.poll() is not None:
                if self.server.returncode == FAILPOINT_STATUS and armed:
                    self.hits[armed[0]] += 1
                    self.kills += 1
                armed = None
                self.serve(None, extra)
            time.sleep(0.02)
        if self.account(bench) is None:
            self.troubles.append(f"the run was: {' '.join(shape)} {' '.join(extra)}")

    # ---- a network device is killed while it gives receive buffers back

    def kill_givers(self):
        for name in (name for name in self.names if "_give_" in name):
            for count in self.random.sample(range(1, receive_buffers.SIZE + 1), 3):
                self.kill_server()
                self.serve_net(f"{name}:{count}")

                def restart(name=name):
                    self.server.wait(20)
                    if self.server.returncode == FAILPOINT_STATUS:
                        self.hits[name] += 1
                        self.kills += 1
                    self.serve_net()

                try:
                    receive_buffers.give_back_and_die(self.socket, name.startswith("packed"), restart)
                except (RuntimeError, OSError, receive_buffers.Gone, subprocess.TimeoutExpired) as error:
                    self.troubles.append(f"receive buffers, {name}:{count}: {error!r}")
                    return

    def serve_net(self, failpoint=None):
        self.start_server(failpoint, ["net", "--port=loop"])
        self.wait_for_socket()

    # ---- the front-end is killed, or stopped; many come and go

    def resources(self):
        process = pathlib.Path(f"/proc/{self.server.pid}")
        status = (process / "status").read_text()
        return {"fds": len(list((process / "fd").iterdir())),
                "threads": int(re.search(r"Threads:\s+(\d+)", status).group(1)),
                "memory": int(re.search(r"VmRSS:\s+(\d+)", status).group(1))}

    def settled(self, before, what):
        """Fails unless the back-end comes back to what it had; memory may differ by allocators' habits."""
        deadline = time.monotonic() + 10
        while True:
            now = self.resources()
            if now["fds"] <= before["fds"] and now["threads"] <= before["threads"] and now["memory"] <= before["memory"] + 8192:
                return
            if time.monotonic() > deadline:
                self.troubles.append(f"{what}: the back-end had {before} and has {now}")
                return
            time.sleep(0.1)

    def fresh_server(self):
        self.kill_server()
        self.serve()
        self.wait_for_socket()
        warm_up = self.bench(0.2)
        self.account(warm_up)
        return self.resources()

    def kill_front_ends(self, rounds):
        before = self.fresh_server()
        for _ in range(rounds):
            bench = self.bench(5, *self.random.choice([[], ["--packed"]]), "--inflight")
            time.sleep(self.random.uniform(0, 0.15))
            bench.kill()
            bench.communicate()
            self.front_end_kills += 1
        self.settled(before, "after front-ends were killed")
        self.account(self.bench(0.3, "--inflight"))

    def stop_front_end(self, seconds):
        before = self.fresh_server()
        bench = self.bench(seconds + 1, "--inflight")
        time.sleep(0.4)
        bench.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.settled({**before, "fds": before["fds"] + 64, "threads": before["threads"] + 4,
                      "memory": before["memory"] + 65536}, "while the front-end is stopped")
        bench.send_signal(signal.SIGCONT)
        self.account(bench)
        self.settled(before, "after the front-end was stopped")

    def storm(self, seconds, rate=1000):
        """Front-ends that connect and go, so many a second; every other asks first, and of these one in five waits for the
        answer. One that comes while the one before is still being ended may be sent away."""
        before = self.fresh_server()
        begin = time.monotonic()
        count = int(seconds * rate)
        seen = dict.fromkeys(("refused", "answered", "sent away"), 0)
        for number in range(1, count + 1):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
                try:
                    one.connect(str(self.socket))
                except OSError:
                    seen["refused"] += 1
                else:
                    self.ask_in_storm(one, number, seen)
            time.sleep(max(0, begin + number / rate - time.monotonic()))
        took = time.monotonic() - begin
        self.settled(before, f"after {count} front-ends")
        self.account(self.bench(0.3))
        print(f"storm: {count} connections in {took:.1f} s, {count / took:.0f} a second: {seen['answered']} of "
              f"{count // 10} that waited were answered, {seen['sent away']} were sent away, {seen['refused']} refused",
              flush=True)
        if seen["refused"]:
            self.troubles.append(f"{seen['refused']} front-ends could not even connect")
        if seen["answered"] < count // 40:
            self.troubles.append(f"only {seen['answered']} of {count // 10} front-ends were answered")

    @staticmethod
    def ask_in_storm(one, number, seen):
        if number % 2:
            return
        one.settimeout(20)
        try:
            one.sendall(GET_FEATURES)
            if number % 10 == 0:
                seen["answered" if len(one.recv(20, socket.MSG_WAITALL)) == 20 else "sent away"] += 1
        except (BrokenPipeError, ConnectionResetError):
            seen["sent away"] += 1

    def stop_back_end(self, seconds):
        """A back-end that does nothing for a while, as on a machine that is out of memory or in a debugger."""
        before = self.fresh_server()
        bench = self.bench(seconds + 1)
        time.sleep(0.4)
        self.server.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.server.send_signal(signal.SIGCONT)
        self.account(bench)
        self.settled(before, "after the back-end was stopped")

    # ---- a disk that fails, or does not answer

    BAD_SECTOR = 2048  # within what is written

    def bad_disk(self, seconds):
        """Requests to one sector fail, those to others do not; then none is answered for a while."""
        if os.geteuid() or not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.left_out.append("a disk that fails or does not answer: root and /dev/fuse are needed")
            return
        if not shutil.which("qemu-storage-daemon"):
            self.troubles.append("no disk that fails: qemu-storage-daemon is not installed (./dev setup soak)")
            return
        image, bad = self.directory / "image", self.directory / "bad"
        image.touch()
        bad.touch()
        os.truncate(image, 64 << 20)
        daemon = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev",
             f"driver=blkdebug,node-name=disk,image.driver=file,image.filename={image},inject-error.0.event=none,"
             f"inject-error.0.errno=5,inject-error.0.once=off,inject-error.0.sector={self.BAD_SECTOR}",
             "--export", f"type=fuse,id=export,node-name=disk,mountpoint={bad},writable=on"], stdin=subprocess.DEVNULL)
        disk, self.disk = self.disk, bad
        try:
            self.wait_for(lambda: bad.stat().st_size, "the disk that fails does not come")
            self.kill_server()
            self.serve()
            self.wait_for_socket()
            self.account_failures(self.bench(seconds, "--iodepth=8"))
            before = self.resources()
            bench = self.bench(seconds + 1, "--iodepth=8", "--packed")
            time.sleep(0.4)
            daemon.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            daemon.send_signal(signal.SIGCONT)
            self.account_failures(bench)
            self.settled(before, "after the disk did not answer")
        finally:
            self.kill_server()
            self.disk = disk
            daemon.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "--lazy", bad], check=False)
            daemon.kill()
            daemon.wait()

    def account_failures(self, bench):
        """As account(), where some requests must have failed, with nothing else wrong."""
        said = self.result_of(bench)
        if said is None:
            return
        measured = said["read"]["failed"] + said["write"]["failed"]
        failed = measured + said["remarks"]["unmeasured_failures"]
        self.failures += failed
        if not failed or (measured and said["remarks"]["first_bad_status"] != 1):
            self.troubles.append(f"a bad sector was not told as VIRTIO_BLK_S_IOERR: {said['remarks']}, {failed} failed")

    def wait_for(self, condition, otherwise, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.troubles.append(otherwise)
                return
            time.sleep(0.02)

    # ---- all of it

    def missed(self):
        return [name for name in self.names if not self.hits[name]]

    def run(self):
        options = self.options
        begin = time.monotonic()
        packed = False
        while self.kills < options.kills and not self.troubles:
            if options.seconds and time.monotonic() - begin > options.seconds:
                self.troubles.append(f"only {self.kills} of {options.kills} kills in {options.seconds} seconds")
                break
            self.kill_back_ends(packed, options.kills)
            packed = not packed
            print(f"{self.kills} kills, {self.requests} requests, {time.monotonic() - begin:.0f} s", flush=True)
        if not self.troubles:
            self.kill_givers()
        for _ in range(8):  # a busy machine may be killed before it gets where it was to be killed
            missed = self.missed()
            if self.troubles or not missed or options.kills < 300:
                break
            self.kill_back_ends(missed[0].startswith("packed"), self.kills + 40)
        if not self.troubles:
            self.kill_front_ends(options.front_ends)
            self.stop_front_end(options.stop)
            self.stop_back_end(options.stop)
            self.bad_disk(options.stop)
            self.storm(options.storm)
        self.kill_server()
        missed = self.missed()
        if missed and options.kills >= 300:
            self.troubles.append(f"no kill at {', '.join(missed)}")
        if self.kills > 100 and self.looked_back < self.kills:
            self.troubles.append(f"only {self.looked_back} blocks were read again after {self.kills} kills")
        good = not (self.lost or self.repeated or self.hung or self.troubles)
        for trouble in self.troubles:
            print(f"trouble: {trouble}", flush=True)
        for what in self.left_out:
            print(f"NOT TESTED: {what}", flush=True)
        print(f"failpoints: {sum(self.hits.values())} kills at {len(self.names) - len(missed)} of {len(self.names)}; "
              f"{self.redone} of {self.written} writes were done again before they were acknowledged, "
              f"{self.looked_back} blocks were read again after kills; "
              f"{self.front_end_kills} front-ends killed; {self.failures} requests failed on a bad disk", flush=True)
        if good:
            shutil.rmtree(self.directory)
        print(f"kills {self.kills} requests {self.requests} lost {self.lost} repeated {self.repeated} hung {self.hung}",
              flush=True)
        return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=os.environ.get("RINGWAY", "ringway"))
    parser.add_argument("--kills", type=int, default=300, help="of the back-end (300)")
    parser.add_argument("--seconds", type=float, default=0, help="fail if they take longer")
    parser.add_argument("--run", type=float, default=6, help="seconds of one bench, with one set of options (6)")
    parser.add_argument("--front-ends", type=int, default=10, help="front-ends that are killed (10)")
    parser.add_argument("--stop", type=float, default=2, help="seconds for which a front-end, the back-end and its disk are stopped (2)")
    parser.add_argument("--storm", type=float, default=10, help="seconds of 1,000 connections each (10)")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--directory", help="for the disk and all else (the system's temporary one)")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    soak = Soak(options)
    try:
        return soak.run()
    finally:
        soak.kill_server()


sys.exit(main())
