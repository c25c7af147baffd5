#!/usr/bin/env python3
"""Real guests whose network device `ringway serve net` serves, over a tap in a network namespace of the host.
Exit status 0 when all pass, 1 when one fails, 77 when this machine cannot run them."""

import argparse
import hashlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guest"))

import image  # noqa: E402
import lab  # noqa: E402

HOST, GUEST, PEER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
VLAN_HOST, VLAN_GUEST = "10.78.0.1", "10.78.0.2"
MACS = ["52:54:00:77:00:02", "52:54:00:77:00:03"]  # of guests
FILE_BYTES = 24 << 20
UNREAD_BYTES = 2 << 20  # fits a socket of the guest
# QEMU has the configuration space of its own network devices itself.
HARMLESS = "supports VHOST_USER_PROTOCOL_F_CONFIG but QEMU does not"
# What it says of a back-end that is gone.
LOST = "vhost VQ [0-9]+ ring restore failed"
NO_OFFLOADS = "".join(f",{name}=off" for name in (
    "csum", "gso", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "host_tso4", "host_tso6", "host_ecn",
    "host_ufo", "mrg_rxbuf"))
LISTENS = ":1451 00000000000000000000000000000000:0000 0A"  # iperf3, in /proc/net/tcp6
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


class Namespace:
    """A network namespace of the host that ends with the scenario."""

    def __init__(self):
        self.name = f"ringway{os.getpid()}"
        image.run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def wrap(self, *command):
        return ["ip", "netns", "exec", self.name, *command]

    def ip(self, *words):
        return image.run("ip", "-n", self.name, *words)

    def close(self):
        subprocess.run(["ip", "netns", "delete", self.name], check=False)


class Lab:
    """One scenario's folder, namespace, back-end and guest."""

    def __init__(self, options):
        self.program = os.environ.get("RINGWAY") or lab.REPOSITORY / "build" / "release" / "ringway"
        self.qemu = os.environ.get("QEMU", "qemu-system-x86_64")
        self.options = options
        self.image = image.build()
        self.folder = Path(tempfile.mkdtemp(prefix="ringway-net-"))
        self.socket = self.folder / "net.sock"
        self.log = self.folder / "backend.log"
        self.space = Namespace()
        self.backend = None
        self.guests = []
        self.serve_options = ()
        self.expected = HARMLESS  # of what the console says
        self.port = "tap:name=tap0"
        self.by_switch = False

    def serve(self, *options):
        self.serve_options = options or self.serve_options
        what = ("switch", f"--uplink={self.port}") if self.by_switch else ("net", f"--port={self.port}")
        self.backend = self.start_backend(self.socket, *what, *self.serve_options, *self.options.serve)
        self.check_backend()

    def start_backend(self, at, *words):
        """A back-end in the namespace, when it listens."""
        with open(self.log, "ab") as log:
            backend = lab.spawn(self.space.wrap(self.program, "serve", *words, f"--socket-path={at}"),
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        # The kernel lists the sockets of a network namespace only there; ours appear when somebody listens.
        lab.wait_until(lambda: backend.poll() is not None or at.is_socket(), lab.START_LIMIT, "the back-end")
        return backend

    def upgrade(self):
        """The same program goes on in another process. How long the guest had to wait, in ms."""
        lab.adopt_orphans()
        done = subprocess.run(list(map(str, self.space.wrap(self.program, "upgrade", f"--pid={self.backend.pid}"))),
                              capture_output=True, text=True, check=False)
        match = re.search(r"process (\d+) serves .* after a pause of ([\d.]+) ms", done.stdout)
        if not match:
            raise lab.LabError(f"no upgrade: {done.stderr.strip()}")
        if status := self.backend.wait(lab.START_LIMIT):
            raise lab.LabError(f"the process that was replaced ended with status {status}")
        self.backend = lab.Adopted(int(match[1]))
        return float(match[2])

    def address_tap(self, mtu=1500):
        self.space.ip("address", "replace", f"{HOST}/24", "dev", "tap0")
        self.space.ip("link", "set", "tap0", "up", "mtu", str(mtu))

    def check_backend(self):
        if self.backend.poll() is not None:
            raise lab.LabError(f"the back-end ended with status {self.backend.returncode}: {self.log.read_text()[-2000:]}")

    def stop_backend(self):
        self.check_backend()
        self.backend.send_signal(signal.SIGTERM)
        try:
            status = self.backend.wait(lab.STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise lab.LabError("the back-end did not end at SIGTERM") from None
        if status:
            raise lab.LabError(f"the back-end ended with status {status} on SIGTERM")

    def initramfs(self, script, tools=()):
        one = image.Cpio()
        kernel = self.image.vmlinux.parent
        order = (kernel / "guest_net").read_text()
        for name in order.split():
            one.file(f"modules/{name}.ko", (kernel / f"{name}.ko").read_bytes(), 0o644)
        one.file("modules/order", order.encode(), 0o644)
        one.file("scenario.sh", (HERE / "guest" / script).read_bytes())
        one.file("net.sh", (HERE / "guest" / "net.sh").read_bytes())
        one.file("init", (lab.SCRIPTS / "init").read_bytes())
        programs = [image.tool(name) for name in tools]
        for program in programs:
            one.file(f"tools/{program.name}", program.read_bytes())
        for library in image.libraries(programs):
            one.file(library, Path(library).read_bytes())
        path = self.folder / f"initramfs{len(self.guests)}"
        path.write_bytes(self.image.initramfs.read_bytes() + one.finish())
        return path

    def boot(self, script="pass.sh", *, device="", netdev="", chardev="", processors=1, words="", reboots=False, tools=(),
             socket=None, address=GUEST, host=HOST, mac=None, extra=()):
        # QEMU 7.2 unmasks a vector of vhost-user-net by way of KVM even where there is no KVM, and crashes.
        device = device if lab.kvm_works(self.qemu) else re.sub(",vectors=[0-9]+", "", device) + ",vectors=0"
        words = f"lab.host={host} lab.guest={address} lab.vlan_host={VLAN_HOST} lab.vlan_guest={VLAN_GUEST} {words}"
        command = [*lab.bare_machine(self.qemu, self.image.vmlinux, self.initramfs(script, tools), words,
                                     processors=processors),
                   *lab.shared_memory("512M"), *([] if reboots else ["-no-reboot"]),
                   "-chardev", f"socket,id=net,path={socket or self.socket}{chardev}",
                   "-netdev", f"vhost-user,id=net0,chardev=net{netdev}",
                   "-device", f"virtio-net-pci,netdev=net0,mac={mac or MACS[len(self.guests)]}{device}", *extra]
        self.guests.append(Guest(self, command))
        return self.guests[-1]

    def close(self):
        for guest in self.guests:
            guest.end()
        if self.backend and self.backend.poll() is None:
            self.backend.kill()
            self.backend.wait()
        self.space.close()
        if self.options.keep:
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


class Guest:
    """A machine that QEMU runs, and what is said on its console."""

    def __init__(self, one, command):
        self.lab = one
        self.expected = one.expected
        self.name = f"guest {len(one.guests)}"
        self.last = []
        self.machine = lab.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.console = lab.Console(self.machine, self.show, one.check_backend)

    def show(self, line):
        self.last.append(line)
        if self.lab.options.verbose:
            print(f"  {self.name} | {line}", flush=True)

    def go_on_as(self, other):
        """It has moved to the machine of another, which has nothing to say of its own."""
        self.machine, self.console = other.machine, other.console
        other.console.show = self.show
        other.console.guest_runs = True

    def end(self):
        if self.machine.poll() is None:
            self.machine.kill()
            self.machine.wait()
        self.console.close()

    def follow(self, **answers):
        """Until it says PASS. answers: what to call for each `ask` with the words behind it."""
        deadline = time.monotonic() + 200
        while (line := self.console.line(deadline)) is not None:
            if line.startswith(lab.MARK):
                verb, _, text = line.removeprefix(lab.MARK).partition(" ")
                if verb == "PASS":
                    break
                if verb == "FAIL":
                    raise lab.LabError(f"the guest failed: {text}")
                if verb == "ask":
                    name, *words = text.split()
                    answer = answers[name](*words)  # which may move the guest to another console
                    self.console.send(str(answer))
            else:
                self.console.judge(line, self.expected)
        else:
            raise lab.LabError(f"the machine ended before the guest was done, with status {self.machine.wait()}")
        while self.console.line(deadline) is not None:
            pass
        if status := self.machine.wait(lab.START_LIMIT):
            raise lab.LabError(f"QEMU ended with status {status}")


class Files:
    """What the guest fetches from the host and sends to it, by `nc`, with checksums on both sides."""

    def __init__(self, lab_of_files):
        self.lab = lab_of_files
        self.content = os.urandom(1 << 20) * (FILE_BYTES >> 20)
        self.digest = hashlib.sha256(self.content).hexdigest()

    def server(self, code):
        """Runs `code` on a listening socket `s` in the namespace, once; content is its standard input."""
        script = ("import socket,sys,hashlib\ns = socket.create_server(('', 5000))\nprint('ready', flush=True)\n" + code)
        return subprocess.Popen(self.lab.space.wrap(sys.executable, "-c", script), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=False, preexec_fn=lab.die_with_parent)

    def offer(self, pause=0):
        """The guest may fetch the content at port 5000 now; what it must hash to. `pause`: seconds for each MiB."""
        process = self.server("import time\nc, _ = s.accept()\n"
                              f"while b := sys.stdin.buffer.read(1 << 20): c.sendall(b); time.sleep({pause})\nc.close()")
        process.stdout.readline()

        def feed():
            process.stdin.write(self.content)
            process.stdin.close()
            process.wait()
        threading.Thread(target=feed, daemon=True).start()
        return self.digest

    def flows(self):
        """The guest may fetch 64 KiB at port 5000 now, 64 times."""
        self.server("for _ in range(64):\n    c, _ = s.accept()\n    c.sendall(bytes(65536))\n    c.close()").stdout.readline()
        return "yes"

    def accept(self):
        """The guest may send to port 5000 now; digest() tells afterwards."""
        self.receiver = self.server("c, _ = s.accept()\nh = hashlib.sha256()\n"
                                    "while b := c.recv(1 << 16): h.update(b)\nprint(h.hexdigest(), flush=True)")
        self.receiver.stdout.readline()
        return "yes"

    def received(self):
        digest = self.receiver.stdout.readline().decode().strip()
        self.receiver.communicate()
        return digest


def whole(one, script="pass.sh", serve=(), mtu=1500, answers=None, **boot):
    """Boots a guest that pings, fetches a file and sends it back."""
    one.serve(*serve)
    one.address_tap(mtu)
    files = Files(one)
    guest = one.boot(script, **boot)
    guest.follow(**{"offer": files.offer, "flows": files.flows, "accept": files.accept, "received": files.received,
                    **(answers or {})})
    one.stop_backend()
    return guest


@scenario
def split(one):
    """split rings, all offloads: ping, a file in both directions, its checksum"""
    whole(one, words="lab.has=0,1,11,15,32 lab.not=34")


@scenario
def packed(one):
    """packed rings"""
    whole(one, device=",packed=on", words="lab.has=15,32,34")


@scenario
def no_offloads(one):
    """nothing is left to the other side: checksums and segments by the guest"""
    whole(one, device=NO_OFFLOADS, words="lab.not=0,1,7,8,11,12,15")


@scenario
def big_buffers(one):
    """offloads without merged buffers"""
    whole(one, device=",mrg_rxbuf=off", words="lab.has=1,7,11 lab.not=15")


@scenario
def mtu_9000(one):
    """long frames, of an MTU that QEMU tells back-end and guest"""
    whole(one, serve=("--mtu=9000",), mtu=9000, device=",host_mtu=9000", words="lab.has=3 lab.mtu=9000")


@scenario
def vlan(one):
    """tagged frames"""
    stations = []

    def tag():
        stations.append(lab.spawn(one.space.wrap(sys.executable, HERE / "vlan_station.py", "tap0", "10", VLAN_HOST),
                                  stdout=subprocess.PIPE))
        stations[0].stdout.readline()
        return "yes"
    try:
        whole(one, script="vlan.sh", answers={"tag": tag})
    finally:
        for station in stations:
            station.kill()
            station.communicate()


def spread(one, queues, **options):
    """Flows use all pairs of queues."""
    whole(one, script="spread.sh", tools=("ethtool",), netdev=f",queues={queues}",
          device=f",mq=on,vectors={2 * queues + 2}", processors=queues, **options)


@scenario
def many_queues(one):
    """four pairs of queues, four processors, two workers: the tap brings a flow where the guest has it"""
    spread(one, 4, serve=("--queues=4", "--workers=2"), words="lab.has=22 lab.queues=4")


@scenario
def one_tap_queue(one):
    """four pairs of queues over a tap that has one: the device spreads flows"""
    one.space.ip("tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
    spread(one, 4, serve=("--queues=4",), words="lab.queues=4")


@scenario
def switch(one):
    """the tap is an uplink of a switch on two workers, with all offloads: the same file, and flows spread"""
    one.by_switch = True
    spread(one, 2, serve=("--workers=2", "--queues=2"), words="lab.has=0,1,11,15,32 lab.queues=2")


@scenario
def switch_no_offloads(one):
    """through the switch to a guest that takes no work: checksums and segments are the switch's"""
    one.by_switch = True
    off = "".join(f",{name}=off" for name in ("guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "mrg_rxbuf"))
    whole(one, device=off, words="lab.has=0,11 lab.not=1,7,15")


@scenario
def xdp(one):
    """a veth pair, one end of which we serve by AF_XDP: nothing is left to either side"""
    one.space.ip("link", "add", "xdp0", "type", "veth", "peer", "name", "tap0")
    one.space.ip("link", "set", "xdp0", "up")
    image.run(*one.space.wrap(sys.executable, HERE / "no_offloads.py", "tap0"))
    one.port = "xdp:interface=xdp0"
    whole(one, words="lab.not=0,1,7,8,11,12")
    if "prog/xdp" in one.space.ip("-d", "link", "show", "xdp0"):
        raise lab.LabError("the XDP program is left on the interface")


@scenario
def user(one):
    """no interface at all: the guest pings what libslirp is, and reaches a server of the host"""
    one.port = "user"
    one.serve()
    files = Files(one)
    guest = one.boot(host="10.0.2.2", address="10.0.2.15", words="lab.not=0,1,7,8,11,12")
    guest.follow(offer=files.offer, accept=files.accept, received=files.received)
    one.stop_backend()


class Peer:
    """The guest at the other end, which does what the host passes on to it (peer.sh): for `pass.sh` it is what Files is."""

    def __init__(self, guest):
        self.orders, self.answers = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=self.follow, args=(guest,), daemon=True)
        self.thread.start()

    def follow(self, guest):
        try:
            guest.follow(order=self.orders.get, done=self.done)
            self.answers.put(None)
        except lab.LabError as error:
            self.answers.put(error)

    def done(self, *words):
        self.answers.put(" ".join(words) or "yes")
        return "yes"

    def tell(self, order):
        self.orders.put(order)
        try:
            answer = self.answers.get(timeout=120)
        except queue.Empty:
            raise lab.LabError(f"the other guest does not {order}") from None
        if isinstance(answer, Exception):
            raise lab.LabError(f"the other guest: {answer}")
        return answer

    def offer(self):
        return self.tell("offer")

    def accept(self):
        return self.tell("accept")

    def received(self):
        return self.tell("received")

    def measure(self):
        return self.tell("measure")

    def end(self):
        self.tell("end")
        self.thread.join(lab.STOP_LIMIT)


def two(one, script, tools=(), **boot):
    """Two guests on a switch; the first runs the script, and the second is its host."""
    one.by_switch = True
    other = one.folder / "other.sock"
    one.serve(f"--socket-path={other}")
    one.address_tap()
    peer = Peer(one.boot("peer.sh", socket=other, address=PEER, host=HOST, tools=tools, **boot))
    guest = one.boot(script, host=PEER, tools=tools, **boot)
    guest.follow(offer=peer.offer, accept=peer.accept, received=peer.received, measure=peer.measure)
    peer.end()
    one.stop_backend()
    return guest


@scenario
def two_guests(one):
    """through `ringway serve switch` from one guest to another, with all offloads: ping, a file in both directions, iperf3"""
    guest = two(one, "measure.sh", tools=("iperf3",), words="lab.has=0,1,11,15,32")
    show_rates(guest)


@scenario
def two_guests_no_offloads(one):
    """the same file between guests that leave nothing to each other"""
    two(one, "pass.sh", device=NO_OFFLOADS, words="lab.not=0,1,7,8,11,12,15")


@scenario
def iperf3(one):
    """iperf3 in both directions over the tap, with two pairs of queues"""
    servers = []

    def measure():
        servers.append(lab.spawn(one.space.wrap("iperf3", "--server", "--one-off"), stdout=subprocess.DEVNULL))
        lab.wait_until(lambda: LISTENS in Path(f"/proc/{servers[-1].pid}/net/tcp6").read_text(), 10, "iperf3")
        return "yes"
    try:
        show_rates(whole(one, "measure.sh", serve=("--queues=2",), netdev=",queues=2", device=",mq=on,vectors=6",
                         processors=2, answers={"measure": measure}, tools=("iperf3",)))
    finally:
        for server in servers:
            server.kill()
            server.wait()


def show_rates(guest):
    for line in guest.last:
        if found := re.search("RINGWAY: rate (.*)", line):
            print(f"     {found[1]}", flush=True)


@scenario
def reboot(one):
    """the guest resets its machine while it pings, and the next boot works"""
    boots = []

    def boot():
        boots.append(1)
        return len(boots)
    whole(one, script="reboot.sh", answers={"boot": boot}, reboots=True)


@scenario
def restart(one):
    """the back-end is killed and started again under pings, and under a file in each direction, which arrives whole"""
    files = Files(one)

    def kill():
        one.backend.kill()
        one.backend.wait()
        one.socket.unlink()
        # The kernel takes longer than a server waits for that, where others keep all processors busy.
        lab.wait_until(lambda: "tap0" not in one.space.ip("link"), lab.START_LIMIT, "the killed back-end's tap to go")
        one.serve()
        one.address_tap()
        return "yes"
    one.expected = f"{HARMLESS}|{LOST}"
    # The file that is fetched comes slowly enough to be interrupted.
    whole(one, script="restart.sh", chardev=",reconnect=1",
          answers={"restart": kill, "offer": lambda: files.offer(pause=0.1)})


def upgraded_under(one, **options):
    """Boots a guest that counts its pings, and replaces the back-end ten times meanwhile."""
    pauses = []

    def upgrade():
        for _ in range(10):
            pauses.append(one.upgrade())
            time.sleep(0.1)
        return "yes"

    whole(one, script="upgrade.sh", answers={"upgrade": upgrade}, **options)
    pauses.sort()
    print(f"{len(pauses)} upgrades, pause median {pauses[len(pauses) // 2]} ms, longest {pauses[-1]} ms")


@scenario
def upgraded(one):
    """the program is replaced again and again, and not one ping is lost: the tap goes along"""
    upgraded_under(one, serve=("--queues=2", "--workers=2"), netdev=",queues=2", device=",mq=on,vectors=6", processors=2,
                   words="lab.queues=2")


@scenario
def upgraded_switch(one):
    """the same of a switch whose uplink the tap is"""
    one.by_switch = True
    upgraded_under(one, serve=("--workers=2",))


@scenario
def tap_goes(one):
    """the interface is deleted and made again: the link goes down and up, and traffic goes on"""
    one.space.ip("tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")

    def gone():
        one.space.ip("link", "delete", "tap0")
        return "yes"

    def back():
        one.space.ip("tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
        one.address_tap()
        return "yes"
    whole(one, script="tap_goes.sh", answers={"gone": gone, "back": back})


# ---- migration: two hosts with a tap each, and a bridge between them

class Site:
    """A host: its back-end, which stays, and QEMU processes that come and go."""

    SERVE = ()  # options of the back-end

    def __init__(self, one, name, script):
        self.one, self.name, self.script, self.machines = one, name, script, 0
        self.tap = f"tap{name}"
        self.socket = one.folder / f"{name}.sock"
        self.backend = one.start_backend(self.socket, "net", f"--port=tap:name={self.tap}", *self.SERVE, *one.options.serve)
        one.space.ip("link", "set", self.tap, "master", "bridge", "up")
        self.guest = self.control = None

    def boot(self, device, *extra):
        self.machines += 1
        path = self.one.folder / f"{self.name}{self.machines}.qmp"
        self.guest = self.one.boot(self.script, socket=self.socket, device=device, mac=MACS[0],
                                   extra=("-qmp", f"unix:{path},server=on,wait=off", *extra))
        machine = self.guest.machine
        lab.wait_until(lambda: machine.poll() is not None or lab.listening(path), lab.START_LIMIT, "QEMU")
        self.control = lab.Qmp(path)

    def leave(self):
        self.control.close()
        self.guest.end()

    def stop(self):
        self.one.backend = self.backend
        self.one.stop_backend()

    def close(self):
        if self.backend.poll() is None:
            self.backend.kill()
            self.backend.wait()


class PostcopySite(Site):
    SERVE = ("--postcopy",)


class Announcements:
    """Hears who says on an interface of the namespace that a station is behind it now: RARP or gratuitous ARP."""

    CODE = ("import socket, sys\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)\ns.bind((sys.argv[1], 0x0003))\n"
            "print('ready', flush=True)\nmac = bytes.fromhex(sys.argv[2])\nwhile True:\n  frame, address = s.recvfrom(2000)\n"
            "  kind = frame[12:14]\n  if address[2] != 4 and frame[6:12] == mac and frame[:6] == bytes([255] * 6):\n"
            "    print({b'\\x80\\x35': 'rarp', b'\\x08\\x06': 'arp'}.get(kind, kind.hex()), flush=True)\n")

    def __init__(self, one, interface):
        self.process = lab.spawn(one.space.wrap(sys.executable, "-c", self.CODE, interface, MACS[0].replace(":", "")),
                                 stdout=subprocess.PIPE)
        self.process.stdout.readline()
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = b""

    def heard(self):
        self.text += self.process.stdout.read() or b""
        return self.text.decode().split()

    def close(self):
        self.process.kill()
        self.process.wait()


def qmp_status(site):
    return site.control.run("query-migrate").get("status")


class Unread:
    """A file that is sent to the guest when all of its memory has been sent to the other site already, and that waits in the
    guest's socket: no processor has touched those pages, only the device has."""

    CODE = ("import fcntl, struct, termios, time\nc, _ = s.accept()\nc.sendall(sys.stdin.buffer.read())\n"
            "while struct.unpack('i', fcntl.ioctl(c, termios.TIOCOUTQ, bytes(4)))[0]: time.sleep(0.05)\n"
            "print('there', flush=True)\nc.close()\n")

    def __init__(self, one):
        self.files = Files(one)
        self.process = None

    def hold(self):
        self.content = os.urandom(UNREAD_BYTES)
        self.process = self.files.server(self.CODE)
        self.process.stdout.readline()
        return hashlib.sha256(self.content).hexdigest()

    def send(self):
        """Returns when the guest has acknowledged all of it."""
        self.process.stdin.write(self.content)
        self.process.stdin.close()
        if self.process.stdout.readline() != b"there\n":
            raise lab.LabError("the guest has not taken the file")
        self.process.wait()


def passes(site):
    """How often the memory has been looked through for pages that must be sent."""
    return site.control.run("query-migrate").get("ram", {}).get("dirty-sync-count", 0)


# Memory that is written once after the first pass has begun makes a second one of a second.
SLOW = {"max-bandwidth": 32 << 20, "downtime-limit": 1}
FAST = {"max-bandwidth": 1 << 30, "downtime-limit": 1000}
CRAWLING = {"max-bandwidth": 2 << 20, "downtime-limit": 1000}  # the first pass shall not end by itself


class Move:
    """The guest goes on at the other site, which says so to the bridge."""

    def __init__(self, one, source, target, device, speed, postcopy=False):
        self.one, self.source, self.target, self.postcopy = one, source, target, postcopy
        self.announcements = Announcements(one, target.tap)
        target.boot(device, "-incoming", "defer")
        for site in (source, target) if postcopy else ():
            site.control.run("migrate-set-capabilities", capabilities=[{"capability": "postcopy-ram", "state": True}])
        uri = f"unix:{one.folder / 'migration.sock'}"
        target.control.run("migrate-incoming", uri=uri)
        source.control.run("migrate-set-parameters", **speed)
        source.control.run("migrate", uri=uri)

    def send_unread(self, waiting):
        """When all pages have been sent once; the second pass does not end meanwhile."""
        lab.wait_until(lambda: passes(self.source) > 1, 100, "all memory to be sent once")
        self.source.control.run("migrate-set-parameters", **{"max-bandwidth": 4096})
        waiting.send()
        if qmp_status(self.source) != "active":
            raise lab.LabError(f"the migration was over too soon: {qmp_status(self.source)}")
        self.source.control.run("migrate-set-parameters", **FAST)

    def wait_for_some(self):
        control = self.source.control
        lab.wait_until(lambda: control.run("query-migrate").get("ram", {}).get("transferred", 0) > CRAWLING["max-bandwidth"],
                       100, "some memory to be sent")

    def give_up(self):
        """The guest stays, and nobody is told anything."""
        self.wait_for_some()
        self.source.control.run("migrate_cancel")
        lab.wait_until(lambda: qmp_status(self.source) == "cancelled", 100, "the migration to be given up")
        self.target.leave()
        if self.announcements.heard():
            raise lab.LabError(f"the bridge heard of {self.target.name}: {' '.join(self.announcements.heard())}")
        self.announcements.close()

    def send_the_rest_later(self):
        """The guest moves now, and most of its memory follows."""
        control = self.source.control
        self.wait_for_some()
        control.run("migrate-set-parameters", **{"max-postcopy-bandwidth": 0})
        control.run("migrate-start-postcopy")

    def finish(self, guest, announcement):
        source, target = self.source, self.target
        lab.wait_until(lambda: qmp_status(source) in ("completed", "failed"), 100, "the migration")
        if qmp_status(source) != "completed":
            raise lab.LabError(f"the migration failed: {source.control.run('query-migrate').get('error-desc')}")
        lab.wait_until(lambda: target.control.run("query-status")["status"] == "running", lab.START_LIMIT,
                       "the guest to run again")
        if self.postcopy and not source.control.run("query-migrate")["ram"]["postcopy-bytes"]:
            raise lab.LabError("no memory has followed the guest: all of it came before")
        source.leave()
        self.one.backend = target.backend
        guest.go_on_as(target.guest)
        lab.wait_until(lambda: announcement in self.announcements.heard(), lab.START_LIMIT,
                       "anybody to be told where the guest is now")
        print(f"the bridge heard of {target.name}: {' '.join(self.announcements.heard())}")
        self.announcements.close()


def moving(one, moves, announcement, device="", site=Site, unread=False, postcopy=False, is_given_up=False):
    one.space.ip("link", "add", "bridge", "type", "bridge")
    one.space.ip("address", "add", f"{HOST}/24", "dev", "bridge")
    one.space.ip("link", "set", "bridge", "up")
    sites = [site(one, name, "unread.sh" if unread else "move.sh") for name in "AB"]
    files, waiting = Files(one), Unread(one)
    left = [sites[(number + 1) % 2] for number in range(moves)]
    at, move = sites[0], None

    def hold():
        return waiting.hold() if left else "enough"

    def begin(speed=SLOW):
        nonlocal move
        move = Move(one, at, left[0], device, speed, postcopy)
        return "begun"

    def go():
        nonlocal at
        if not left:
            return "enough"
        if unread:
            move.send_unread(waiting)
        elif postcopy:
            begin(CRAWLING)
            move.send_the_rest_later()
        else:
            if is_given_up:
                begin(CRAWLING)
                move.give_up()
            begin(FAST)
        move.finish(guest, announcement)
        at = left.pop(0)
        return "moved"

    one.backend = at.backend
    at.boot(device)
    guest = at.guest
    try:
        guest.follow(offer=lambda: files.offer(pause=0.3), hold=hold, begin=begin, go=go)
        for one_site in sites:
            one_site.stop()
    finally:
        for one_site in sites:
            one_site.close()


@scenario
def migrate(one):
    """the guest moves to another host under a transfer, and its driver announces its new place"""
    moving(one, 1, "arp")


@scenario
def migrate_there_and_back(one):
    """from A to B and back to A, whose back-end has waited; of a driver that announces nothing, by our RARP"""
    moving(one, 2, "rarp", device=",guest_announce=off")


@scenario
def migrate_aborted(one):
    """given up half way under a transfer, which goes on where it was; then the guest moves after all"""
    moving(one, 1, "arp", is_given_up=True)


@scenario
def migrate_unread(one):
    """the guest moves with a file in its socket whose pages only the device has written, after they had been sent"""
    moving(one, 1, "arp", unread=True)


@scenario
def migrate_postcopy(one):
    """the guest moves first and its memory follows, under a transfer"""
    moving(one, 1, "arp", site=PostcopySite, postcopy=True)


def run(name, options):
    started = time.monotonic()
    one = Lab(options)
    try:
        SCENARIOS[name](one)
    except (lab.LabError, image.ImageError) as error:
        print(f"FAIL {name}: {error}")
        for guest in one.guests:
            print("\n".join(f"  {guest.name} | {line}" for line in guest.last[-25:]))
        if one.log.exists():
            print("\n".join(f"  back-end | {line}" for line in one.log.read_text(errors="replace").splitlines()[-15:]))
        return lab.status_of(error)
    finally:
        one.close()
    print(f"ok   {name} ({time.monotonic() - started:.1f} s): {SCENARIOS[name].__doc__}", flush=True)
    return 0


def may_make_networks():
    probe = f"ringwayprobe{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        subprocess.run(["ip", "netns", "delete", probe], check=False)
    if done.returncode or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        print(f"skip: no network namespaces or taps here: {done.stderr.strip()}")
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[[], *SCENARIOS])
    parser.add_argument("--names", action="store_true", help="print the scenarios' names")
    parser.add_argument("--serve", action="append", default=[], metavar="OPTION", help="one more for `ringway serve net`")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the guest's console")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the run")
    options = parser.parse_args()
    if options.names:
        print("\n".join(SCENARIOS))
        return 0
    if not may_make_networks():
        return 77
    return max([lab.patient(run, name, options) for name in options.scenario or SCENARIOS])


if __name__ == "__main__":
    sys.exit(main())
