"""Guests with a network device of vhost-net: the image of the guest lab with modules for networks, and QEMU on it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guest"))

import image  # noqa: E402
import lab  # noqa: E402

GUEST_LIMIT = 240


def served_threads(pid):
    """Ringway's threads in another process: it has none unless it serves."""
    names = (path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm"))
    return [name for name in names if name.startswith("rw-")]


class Guest:
    """A machine on Debian's kernel that runs one script, and the words it has told."""

    def __init__(self, script, programs=(), append="", options=(), environment=None, verbose=False, memory="256M", files=None):
        self.folder = Path(tempfile.mkdtemp(prefix="ringway-ioctl-"))
        self.told, self.lines = {}, []
        self.verbose = verbose
        self.files = files or {}  # name in the guest: path here
        built = image.build()
        qemu = os.environ.get("QEMU", "qemu-system-x86_64")
        command = [*lab.bare_machine(qemu, built.vmlinux, self.initramfs(built, script, programs), append, memory),
                   "-no-reboot", *options]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})},
                                        preexec_fn=lab.die_with_parent)
        self.console = lab.Console(self.process, self.show, lambda: None)

    def initramfs(self, built, script, programs):
        extra = archive(built, script)
        for program in map(Path, programs):
            extra.file(f"tools/{program.name}", program.read_bytes())
        for library in image.libraries([program for program in programs if not is_static(program)]):
            extra.file(library, Path(library).read_bytes())
        for name, source in self.files.items():
            extra.file(name, Path(source).read_bytes())
        path = self.folder / "initramfs"
        path.write_bytes(built.initramfs.read_bytes() + extra.finish())
        return path

    def show(self, line):
        self.lines.append(line)
        if self.verbose:
            print(f"  {line}", flush=True)

    def run(self, seconds=GUEST_LIMIT):
        """Until the guest says PASS; LabError otherwise."""
        deadline = time.monotonic() + seconds
        while (line := self.console.line(deadline)) is not None:
            if line.startswith(lab.MARK):
                verb, _, text = line.removeprefix(lab.MARK).partition(" ")
                if verb == "PASS":
                    break
                if verb == "FAIL":
                    raise lab.LabError(f"the guest failed: {text}")
                if verb == "tell":
                    name, _, self.told[name] = text.partition(" ")
            else:
                self.console.judge(line)
        else:
            raise lab.LabError("the machine ended before the guest was done")
        while self.console.line(deadline) is not None:
            pass
        if status := self.process.wait(lab.START_LIMIT):
            raise lab.LabError(f"QEMU ended with status {status}")
        return self.told

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.console.selector.close()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def archive(built, script):
    """An initramfs to follow the image's, with modules for networks, the init and one script."""
    one = image.Cpio()
    kernel = built.vmlinux.parent
    order = (kernel / "net").read_text()
    for name in order.split():
        one.file(f"modules/{name}.ko", (kernel / f"{name}.ko").read_bytes(), 0o644)
    one.file("modules/order", order.encode(), 0o644)
    one.file("scenario.sh", (HERE / "guest" / script).read_bytes())
    one.file("init", (lab.SCRIPTS / "init").read_bytes())
    return one


def is_static(program):
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return done.returncode != 0
