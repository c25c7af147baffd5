"""The parts of the guest lab: a back-end, a QEMU machine booting the guest image, and the talk between them.

A guest speaks by console lines that begin with "RINGWAY: ":
    step TEXT       what it does now
    tell NAME TEXT  a value for the host to keep
    ask NAME        the host does what the scenario says for NAME and sends one line back ("no" if it could not)
    PASS            or FAIL REASON, the end
"""

import ctypes
import hashlib
import json
import os
import platform
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path

import image

SCRIPTS = image.HERE / "guest"
REPOSITORY = image.HERE.parents[1]
MARK = "RINGWAY: "
MIB = 1 << 20

START_LIMIT = 20  # seconds, all of these
STOP_LIMIT = 3
GUEST_LIMIT = 150

# Console lines that mean trouble whatever the scenario thinks of it.
TROUBLE = re.compile(r"I/O error|EXT4-fs (error|warning)|BUG:|Oops|Call Trace:|Kernel panic|WARNING: CPU|blocked for more than"
                     r"|^qemu\S*: .*vhost")


class LabError(Exception):
    """The scenario failed, or the lab cannot work here; the text says why."""


class KernelStuck(LabError):
    """A processor of the guest hung before its first process ran, so before it had seen anything of ours: with several
    of them and without KVM, QEMU loses an interrupt between two now and then when the host has too much to do."""


STUCK = 75  # a runner's status for it, EX_TEMPFAIL


def status_of(error):
    return STUCK if isinstance(error, KernelStuck) else 1


def patient(run, *arguments):
    """The status of run(*arguments), which is called again, twice at most, while that is STUCK."""
    for _ in range(2):
        if (status := run(*arguments)) != STUCK:
            return status
        print("again: what hung had seen nothing of ours", flush=True)
    return min(run(*arguments), 1)


class Skipped(Exception):
    """The chosen back-end cannot do what the scenario is about."""


def wait_until(condition, seconds, what):
    """Waits for condition() to be true, or raises LabError naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds} s for {what}")
        time.sleep(0.02)
    return result


def die_with_parent():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(command, **streams):
    try:
        return subprocess.Popen(list(map(str, command)), preexec_fn=die_with_parent, **streams)
    except OSError as error:
        raise LabError(f"cannot start {command[0]}: {error.strerror}") from error


def listening(path):
    """Whether somebody listens at this unix socket. Asking the kernel does not disturb a server that counts clients."""
    SO_ACCEPTCON = 0x10000
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        # Ringway's sockets listen under another name first; the kernel goes on calling them so.
        is_this = fields[-1] == str(path) or (fields[-1].startswith(f"{path}.") and Path(path).is_socket())
        if is_this and int(fields[3], 16) & SO_ACCEPTCON:
            return True
    return False


def processor_seconds(process):
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process):
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Qmp:
    """QEMU's control socket, one command at a time. Events are dropped."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(START_LIMIT)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while line := self.lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise LabError(f"QEMU closed its control socket during {command}")

    def close(self):
        self.lines.close()
        self.socket.close()


class Backend:
    """A vhost-user-blk back-end process that serves lab.disk at a socket, as a rule lab.socket."""

    name = ""

    def __init__(self, lab, queues=1, read_only=False, options=(), socket=None):
        self.lab, self.queues, self.read_only, self.options = lab, queues, read_only, options
        self.own_socket = socket
        self.process = None

    def program(self):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def grow(self, size):
        """Makes the disk larger and tells the back-end."""
        raise NotImplementedError

    @property
    def socket(self):
        return self.own_socket or self.lab.socket

    @property
    def log(self):
        return self.lab.folder / f"{self.socket.stem}.log"

    def start(self):
        with open(self.log, "ab") as log:
            self.process = spawn(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.ended() or listening(self.socket), START_LIMIT, f"{self.name} to listen")
        if self.ended():
            raise LabError(f"{self.name} ended with status {self.process.returncode} instead of listening")

    def ended(self):
        return self.process.poll() is not None

    def check(self):
        if self.ended():
            raise LabError(f"{self.name} ended with status {self.process.returncode} under the guest")

    def stop(self):
        """The convention for back-end programs: SIGTERM ends it soon, with status 0."""
        self.check()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} did not end within {STOP_LIMIT} s of SIGTERM") from None
        if status:
            raise LabError(f"{self.name} ended with status {status} on SIGTERM instead of 0")

    def kill(self):
        if self.process and not self.ended():
            self.process.kill()
            self.process.wait()


class Adopted:
    """A process that came to us when its parent had ended; as much of Popen as is used here."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds=None):
        deadline = time.monotonic() + (seconds or 1e9)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), seconds)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def adopt_orphans():
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


class Ringway(Backend):
    name = "ringway"

    def program(self):
        return self.lab.program

    def command(self):
        flags = ["--read-only"] if self.read_only else []
        queues = [f"--queues={self.queues}"] if self.queues > 1 else []
        return [self.program(), "serve", "blk", f"--socket-path={self.socket}", f"--blk-file={self.lab.disk}",
                *flags, *queues, *self.options, *self.lab.serve_options]

    def grow(self, size):
        os.truncate(self.lab.disk, size)
        self.process.send_signal(signal.SIGHUP)

    def upgrade(self):
        """The same program goes on in another process. How long the guest had to wait, in ms."""
        adopt_orphans()
        done = subprocess.run([self.program(), "upgrade", f"--pid={self.process.pid}"], capture_output=True, text=True,
                              check=False)
        match = re.search(r"process (\d+) serves .* after a pause of ([\d.]+) ms", done.stdout)
        if not match:
            raise LabError(f"no upgrade: {done.stderr.strip()}")
        if self.process.wait(START_LIMIT):
            raise LabError(f"the process that was replaced ended with status {self.process.returncode}")
        self.process = Adopted(int(match[1]))
        return float(match[2])


class StorageDaemon(Backend):
    """qemu-storage-daemon, the reference: what fails with it too is the lab's or QEMU's doing."""

    name = "qemu-storage-daemon"

    def program(self):
        return self.name

    def command(self):
        control = self.lab.folder / "storage-daemon.qmp"
        writable = "off" if self.read_only else "on"
        return [self.program(),
                "--blockdev", f"driver=file,node-name=disk,filename={self.lab.disk},discard=unmap,read-only="
                              + ("on" if self.read_only else "off"),
                "--export", f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={self.lab.socket},"
                            f"writable={writable},num-queues={self.queues}",
                "--chardev", f"socket,id=control,path={control},server=on,wait=off", "--monitor", "chardev=control"]

    def grow(self, size):
        version = re.search(r"version (\d+)", image.run(self.name, "--version"))[1]
        if int(version) < 8:
            raise Skipped(f"{self.name} {version} does not tell its front-end of a new size")
        control = Qmp(self.lab.folder / "storage-daemon.qmp")
        control.run("block_resize", **{"node-name": "disk", "size": size})
        control.close()


BACKENDS = {"ringway": Ringway, "qsd": StorageDaemon}


class Between:
    """`ringway trace` or `ringway proxy` in front of what listens at lab.front, which it then is itself."""

    def __init__(self, lab, kind, *options):
        self.kind = kind
        self.socket = lab.folder / f"{kind}{len(lab.between)}.sock"
        self.output = self.socket.with_suffix(".out")
        self.log = self.socket.with_suffix(".log")
        with open(self.output, "wb") as output, open(self.log, "wb") as log:
            self.process = spawn([lab.program, kind, self.socket, lab.front, *options], stdin=subprocess.DEVNULL,
                                 stdout=output, stderr=log)
        wait_until(lambda: self.process.poll() is not None or listening(self.socket), START_LIMIT, f"{kind} to listen")
        if self.process.poll() is not None:
            raise LabError(f"ringway {kind} does not listen: {self.log.read_text()}")
        lab.front = self.socket

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            raise LabError(f"ringway {self.kind} did not end within {STOP_LIMIT} s of SIGTERM") from None
        if status:
            raise LabError(f"ringway {self.kind} ended with status {status}: {self.log.read_text()}")
        if self.socket.exists():
            raise LabError(f"ringway {self.kind} has left its socket behind")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Console:
    """QEMU's standard streams, which are the guest's serial console, as lines in both directions."""

    def __init__(self, process, show, check_backend):
        self.process, self.show, self.check_backend = process, show, check_backend
        self.last = deque(maxlen=30)
        self.rest = b""
        self.lines = deque()
        self.guest_runs = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(process.stdout, selectors.EVENT_READ)

    def line(self, deadline):
        """The next line, or None at the end."""
        while not self.lines:
            if not self.selector.select(0.5):
                self.check_backend()
                if time.monotonic() > deadline:
                    raise LabError("the guest's time is over")
                continue
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return None
            *whole, self.rest = (self.rest + data).split(b"\n")
            self.lines += [line.decode(errors="replace").rstrip("\r") for line in whole]
        line = self.lines.popleft()
        self.last.append(line)
        self.show(line)
        self.guest_runs = self.guest_runs or line.startswith(MARK)
        return line

    def judge(self, line, expected=None):
        """Raises LabError for a line that means trouble and is not expected."""
        if TROUBLE.search(line) and not (expected and re.search(expected, line)):
            stuck = "soft lockup" in line and not self.guest_runs
            raise (KernelStuck if stuck else LabError)(f"the console says: {line.strip()}")

    def send(self, text):
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def close(self):
        self.selector.close()
        self.process.stdin.close()
        self.process.stdout.close()


def bare_machine(qemu, vmlinux, initramfs, words, memory="512M", processors=2):
    """The beginning of QEMU's command line for a machine without devices whose console is its standard streams. words: on
    the kernel's command line, with others."""
    processor = ["-accel", "kvm", "-cpu", "host"] if kvm_works(qemu) else ["-accel", "tcg", "-cpu", "max,la57=off"]
    return [qemu, "-nodefaults", "-no-user-config", "-display", "none", *processor, "-machine", "q35", "-m", memory,
            "-smp", str(processors), "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-kernel", vmlinux, "-initrd", initramfs, "-append",
            f"console=ttyS0 loglevel=5 nokaslr mitigations=off tsc=reliable no_timer_check panic=-1 {words}"]


def shared_memory(size):
    """QEMU's options for a memory that a vhost-user back-end can have."""
    return ["-machine", "memory-backend=ram", "-object", f"memory-backend-memfd,id=ram,size={size},share=on"]


class Machine:
    """A QEMU machine on the image's kernel whose /dev/vda is the back-end's disk."""

    def __init__(self, lab, script, *, disk_options="", append="", processors=1, memory="512M", extra=(), reboots=False,
                 expected=None, front=None, control=None):
        self.lab, self.expected = lab, expected
        self.control_path = control or lab.control
        self.told = {}
        self.control = None
        command = [*bare_machine(lab.qemu, lab.image.vmlinux, lab.initramfs(script), append, memory, processors),
                   *shared_memory(memory.split(",")[0]), "-qmp", f"unix:{self.control_path},server=on,wait=off",
                   *([] if reboots else ["-no-reboot"]), *extra,
                   "-device", "pcie-root-port,id=rootport,chassis=1",
                   "-device", f"vhost-user-blk-pci,chardev=disk,bus=rootport"
                              + disk_options + "".join(f",{option}" for option in lab.device_options)]
        if not any("id=disk" in word for word in extra):
            command += ["-chardev", f"socket,id=disk,path={front or lab.front}"]
        self.process = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.console = Console(self.process, lab.show, lab.check_backend)
        self.deadline = time.monotonic() + GUEST_LIMIT

    def qmp(self, command, **arguments):
        if not self.control:
            wait_until(lambda: self.process.poll() is not None or listening(self.control_path), START_LIMIT,
                       "QEMU's control socket")
            self.control = Qmp(self.control_path)
        return self.control.run(command, **arguments)

    def run(self, **answers):
        """Follows the guest until it says PASS. answers: what to call for each `ask`; it returns the answer, or the
        machine to which the guest has moved, with the answer. Returns where the guest is in the end."""
        at = self
        while (line := at.console.line(self.deadline)) is not None:
            if line.startswith(MARK):
                verb, _, text = line.removeprefix(MARK).partition(" ")
                if verb == "PASS":
                    return at
                if verb == "FAIL":
                    raise LabError(f"the guest failed: {text}")
                if verb == "tell":
                    name, _, self.told[name] = text.partition(" ")
                if verb == "ask":
                    answer = answers[text]()
                    if isinstance(answer, tuple):
                        at, answer = answer
                    at.console.send(answer)
            else:
                self.console.judge(line, self.expected)
        raise LabError("the machine ended before the guest was done")

    def wait_for_end(self):
        """Reads on until QEMU ends by itself, as it does when the guest switches the machine off."""
        while self.console.line(self.deadline) is not None:
            pass
        if self.process.wait(START_LIMIT):
            raise LabError(f"QEMU ended with status {self.process.returncode}")

    def wait_for_backend(self):
        def connected():
            return any(c["label"] == "disk" and "disconnected" not in c["filename"] for c in self.qmp("query-chardev"))
        wait_until(connected, START_LIMIT, "QEMU to connect to the back-end again")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.control:
            self.control.close()
        self.console.close()


class Lab:
    """One scenario's folder and processes. Leaving the `with` block ends them all and removes the folder."""

    def __init__(self, backend="ringway", program=None, qemu=None, serve_options=(), device_options=(), keep=False,
                 show=lambda line: None, say=print):
        self.backend_type = BACKENDS[backend]
        self.program = program or os.environ.get("RINGWAY") or REPOSITORY / "build" / "release" / "ringway"
        self.qemu = qemu or os.environ.get("QEMU") or "qemu-system-x86_64"
        self.serve_options, self.device_options, self.show, self.keep = serve_options, device_options, show, keep
        self.backend = None
        self.machines = []
        self.between = []
        self.image = image.build(say=say)
        self.folder = None

    def __enter__(self):
        for program, remedy in ((self.qemu, "./dev setup guest"), (self.backend_type(self).program(), "./dev build")):
            if not shutil.which(program):
                raise LabError(f"there is no program {program}: `{remedy}` puts it there")
        self.folder = Path(tempfile.mkdtemp(prefix="ringway-guest-"))
        self.disk, self.socket, self.control = (self.folder / name for name in ("disk.img", "blk.sock", "qmp.sock"))
        self.front = self.socket  # where machines find the back-end
        self.new_disk(256)
        return self

    def __exit__(self, *_):
        for machine in self.machines:
            machine.close()
        for one in self.between:
            one.kill()
        if self.backend:
            self.backend.kill()
        if self.keep:
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def new_disk(self, mebibytes):
        with open(self.disk, "wb") as file:
            file.truncate(mebibytes * MIB)

    def only_ringway(self, reason):
        if self.backend_type is not Ringway:
            raise Skipped(f"{self.backend_type.name} {reason}")

    def serve(self, **options):
        """Starts the back-end; the one before it must have been stopped."""
        self.backend = self.backend_type(self, **options)
        self.backend.start()
        return self.backend

    def put_between(self, kind, *options):
        """Starts `ringway KIND` in front of the back-end, or of what was put there before."""
        one = Between(self, kind, *options)
        self.between.append(one)
        return one

    def boot(self, script, **options):
        machine = Machine(self, script, **options)
        self.machines.append(machine)
        return machine

    def boot_and_finish(self, script, answers=None, **options):
        """One whole boot, from power on to power off."""
        machine = self.boot(script, **options)
        machine.run(**(answers or {}))
        machine.wait_for_end()
        return machine

    def check_backend(self):
        self.backend.check()

    def initramfs(self, script):
        """The image, and after it a second archive with the init and this boot's script."""
        scripts = image.Cpio()
        for name, source in (("scenario.sh", script), *((path.name, path.name) for path in SCRIPTS.iterdir())):
            scripts.file(name, (SCRIPTS / source).read_bytes())
        path = self.folder / f"{script}.cpio"
        path.write_bytes(self.image.initramfs.read_bytes() + scripts.finish())
        return path

    def require(self, condition, otherwise):
        if not condition:
            raise LabError(otherwise)

    def disk_digest(self):
        return hashlib.sha256(self.disk.read_bytes()).hexdigest()

    def disk_usage(self):
        return os.stat(self.disk).st_blocks * 512

    def check_disk(self, folder="files"):
        """The same file system as the guest left it, read on the host from the file behind the disk."""
        checked = subprocess.run([image.tool("e2fsck"), "-fn", self.disk], capture_output=True, text=True, check=False)
        if checked.returncode:
            raise LabError(f"on the host, e2fsck finds the disk damaged:\n{checked.stdout}")
        copies = self.folder / "copies"
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir()
        image.run(image.tool("debugfs"), "-R", f"rdump /{folder} {copies}", self.disk)
        sums = (copies / folder / "SUMS").read_text().splitlines()
        for digest, name in (line.split("  ", 1) for line in sums):
            if hashlib.sha256((copies / folder / name).read_bytes()).hexdigest() != digest:
                raise LabError(f"on the host, {name} has another checksum than in the guest")
        if not sums:
            raise LabError("the guest left no files")

    def tail(self):
        """The last words of everybody, for a failure report."""
        for machine in self.machines[-1:]:
            yield from ("guest  | " + line for line in machine.console.last)
        if self.backend and self.backend.log.exists():
            lines = self.backend.log.read_text(errors="replace").splitlines()[-15:]
            yield from (f"{self.backend.name} | {line}" for line in lines)


_kvm = {}


def kvm_works(qemu):
    """Whether QEMU really runs a processor by KVM here: a ROM of one instruction must make it end with 33 at once.
    A /dev/kvm that opens is not enough; some clouds have one that fails, emulates slower than TCG does, or does
    without the processor's virtualization and breaks on what a whole kernel does."""
    if qemu not in _kvm:
        _kvm[qemu] = virtualizes() and os.access("/dev/kvm", os.R_OK | os.W_OK) and try_kvm(qemu)
    return _kvm[qemu]


def virtualizes():
    """Whether the processor has VT-x or AMD-V; other architectures do not tell it so."""
    if platform.machine() != "x86_64":
        return True
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        return re.search(r"^flags\s*:.*\b(vmx|svm)\b", file.read(), re.MULTILINE) is not None


def try_kvm(qemu):
    debug_exit = bytes([0xB0, 0x10, 0xE6, 0xF4, 0xF4])  # mov al, 0x10; out 0xf4, al; hlt
    with tempfile.NamedTemporaryFile(prefix="ringway-kvm-") as rom:
        rom.write(b"\xf4" * 0xFFF0 + debug_exit.ljust(16, b"\xf4"))
        rom.flush()
        try:
            done = subprocess.run([qemu, "-nodefaults", "-display", "none", "-accel", "kvm", "-cpu", "host", "-m", "16M",
                                   "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-bios", rom.name],
                                  capture_output=True, timeout=2, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == (0x10 << 1 | 1)
