"""A tap of Debian's kernel behind vhost-net and behind `ringway serve net`, by turns in one guest: the guest lab of tests/guest
boots the kernel, for here there may be neither vhost-net nor its module."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "guest"))

import image  # noqa: E402
import lab  # noqa: E402

MEASURED = lab.MARK + "MEASURED "


def initramfs(base, ringway, folder):
    """The guest lab's image, then the modules, the program and the script."""
    archive = image.Cpio()
    kernel = base.vmlinux.parent
    order = (kernel / "bench").read_text()
    for name in order.split():
        archive.file(f"modules/{name}.ko", (kernel / f"{name}.ko").read_bytes(), 0o644)
    archive.file("modules/order", order.encode(), 0o644)
    stripped = folder / "ringway"
    image.run("strip", "-o", stripped, ringway)
    archive.file("tools/ringway", stripped.read_bytes())
    for path in image.libraries([ringway]):
        archive.file(path, Path(path).read_bytes())
    archive.file("scenario.sh", (Path(__file__).parent / "guest" / "tap.sh").read_bytes())
    archive.file("init", (lab.SCRIPTS / "init").read_bytes())
    path = folder / "initramfs.cpio"
    path.write_bytes(base.initramfs.read_bytes() + archive.finish())
    return path


def measure(ringway, runs, seconds, show=lambda line: None):
    """Yields what each run has measured; `accelerated` says whether the processor ran the guest itself."""
    base = image.build()
    qemu = os.environ.get("QEMU") or "qemu-system-x86_64"
    with tempfile.TemporaryDirectory(prefix="ringway-bench-") as folder:
        words = f"lab.runs={runs} lab.watch={seconds} lab.runtime={seconds + 2}"
        machine = lab.bare_machine(qemu, base.vmlinux, initramfs(base, ringway, Path(folder)), words)
        process = lab.spawn([*machine, "-no-reboot"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        console = lab.Console(process, show, lambda: None)
        try:
            yield from follow(console, time.monotonic() + 60 + runs * 8 * (seconds + 8))
        finally:
            process.kill()
            process.wait()
            console.close()


def follow(console, deadline):
    while (line := console.line(deadline)) is not None:
        if line.startswith(MEASURED):
            yield json.loads(line.removeprefix(MEASURED))
        elif line.startswith(lab.MARK + "PASS"):
            return
        elif line.startswith(lab.MARK + "FAIL"):
            raise lab.LabError(f"the guest failed: {line.removeprefix(lab.MARK + 'FAIL ')}")
    raise lab.LabError("the machine ended before all was measured")


if __name__ == "__main__":
    for each in measure(os.environ.get("RINGWAY") or ROOT / "build/release/ringway", int(sys.argv[1]), float(sys.argv[2]), print):
        print(each)
