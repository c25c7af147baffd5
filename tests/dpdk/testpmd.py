"""dpdk-testpmd as a program that is told what to do: for the tests here, and for bench/run.

It needs neither huge pages nor a PCI device: --no-huge takes its memory from a memory file, which can be shared.
"""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time

PROGRAM = shutil.which("dpdk-testpmd")
PROMPT = b"testpmd> "
_prefixes = itertools.count()


class Testpmd:
    """Runs inside `with`. `vdevs` are the ports; everything else is what testpmd is told."""

    def __init__(self, vdevs, queues=1, cpu=None, main_cpu=None, memory=256, options=(), wait=30, wrap=()):
        """`cpu` is for the forwarding thread, `main_cpu` for the one that takes commands; none: any. `wrap`: words in front of
        the command."""
        prefix = f"ringway{time.monotonic_ns()}-{next(_prefixes)}"
        places = "0,1" if cpu is None else f"0@{main_cpu},1@{cpu}"
        # Line by line, or answers would come long after the prompt that follows them.
        self.command = [*wrap, "stdbuf", "-oL", PROGRAM or "dpdk-testpmd", f"--lcores={places}", "--no-huge", "-m", str(memory),
                        "--no-pci", f"--file-prefix={prefix}", "--no-telemetry", "--force-max-simd-bitwidth=512",
                        "--log-level=pmd.net.virtio.init:info", *(f"--vdev={vdev}" for vdev in vdevs), "--",
                        "--interactive", "--total-num-mbufs=8192", f"--rxq={queues}", f"--txq={queues}", "--nb-cores=1",
                        *options]
        self.wait = wait

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log)
        self.pid = self.process.pid
        self.seen = 0
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.process.stdin.write(b"stop\nquit\n")
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def output(self):
        # Where it writes next must not move.
        return os.pread(self.log.fileno(), 1 << 24, 0)

    def ready(self, expected=""):
        """Waits for a text, a regular expression, and the prompt behind it; what has been printed since the last time."""
        deadline = time.monotonic() + self.wait
        while True:
            text = self.output()
            found = re.compile(expected.encode(), re.S).search(text, self.seen)
            end = text.find(PROMPT, found.end()) if found else -1
            if end >= 0:
                begin, self.seen = self.seen, end + len(PROMPT)
                return text[begin:end].decode(errors="replace")
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"testpmd does not answer ({self.process.poll()}): {text[-3000:].decode(errors='replace')}")
            time.sleep(0.01)

    def tell(self, command, expected=""):
        """What testpmd answers to one command. Some events print a prompt too, so say what to expect."""
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self.ready(expected)

    def start(self, mode="io", tx_first=0):
        """`tx_first`: so many bursts of 32 packets are sent on each queue before forwarding begins."""
        self.tell(f"set fwd {mode}", "packet forwarding mode")
        self.tell(f"start tx_first {tx_first}" if tx_first else "start", "packets/burst")

    def statistics(self, port=0):
        """Counters of a port since the last `clear port stats all`, and packets per second since the last call."""
        text = self.tell(f"show port stats {port}", "Tx-pps.*####")
        return {name: int(value) for name, value in re.findall(r"([RT][Xx]-\w+):\s+(\d+)", text)}

    def stop(self):
        """Ends forwarding; what was forwarded in all: RX-packets, TX-packets, TX-dropped and so on."""
        text = self.tell("stop", "Accumulated forward.*TX-packets.*Done")
        total = text[text.rindex("Accumulated forward statistics"):]
        return {name: int(value) for name, value in re.findall(r"([RT]X-\w+): (\d+)", total)}


def virtio_user(path, queues=1, server=False, **features):
    """The driver. Features by the names of its options: packed_vq, mrg_rxbuf, in_order, vectorized."""
    words = [f"net_virtio_user0,path={path}", f"queues={queues}", "queue_size=256", *(f"{k}={v}" for k, v in features.items())]
    return ",".join(words + ["server=1"] * server)


def net_vhost(path, queues=1, index=0):
    """The back-end of DPDK."""
    return f"net_vhost{index},iface={path},queues={queues}"
