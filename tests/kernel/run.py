#!/usr/bin/env python3
"""Boots Debian's kernel in QEMU with its vhost modules and runs ringway_kernel_tests there. Exit status 0 when all
scenarios pass, 1 when one fails."""

import argparse
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
import vdpa  # noqa: E402

# Name: the device, whether it is reached through `ringway bridge`, what it shows.
SCENARIOS = {
    "net": ("net", False, "vhost-net over a tap: ping, a flood both ways, IOTLB, log; huge pages"),
    "scsi": ("scsi", False, "vhost-scsi on an LIO target: INQUIRY, capacity, write, read back"),
    "vsock": ("vsock", False, "vhost-vsock to a listening socket: connect, echo, reset"),
    "vdpa": ("vdpa", False, "vhost-vdpa on the kernel's simulated disk and network device"),
    "bridge_net": ("net", True, "the tests of net through ringway bridge"),
    "bridge_scsi": ("scsi", True, "the tests of scsi through ringway bridge"),
    "bridge_vsock": ("vsock", True, "the tests of vsock through ringway bridge"),
    "bridge_cuse": ("cuse", True, "the tests of net through ringway bridge, over a device that ringway cuse makes there"),
    "cuse_vdpa": ("cuse_vdpa", False, "the tests of vdpa on a disk and a network device that ringway cuse makes there"),
    "bridge_vdpa": ("vdpa", True, "the disk of vdpa through ringway bridge, by tests, probe and bench"),
}
# Of all tests: those of a device, directly and through a bridge.
FILTERS = {"net": ("Net*:HugePages*", "Net.*"), "scsi": ("Scsi*", "Scsi.*"), "vsock": ("Vsock.*", "Vsock.*"),
           "vdpa": ("Vdpa*", "VdpaBlk.*"),
           "cuse_vdpa": ("Vdpa*", None),
           "cuse": (None, "Net.*-Net.TheLogHasWhatTheKernelWrites")}
LIMIT = 300  # seconds for a scenario


def program(variable, name):
    path = Path(os.environ.get(variable) or lab.REPOSITORY / "build" / "release" / name)
    if not path.exists():
        raise lab.LabError(f"there is no {path}: build the target first")
    return path


def modules(base, device):
    """The folder of the modules that a device needs, and their names in loading order."""
    if device == "vdpa":
        return vdpa.modules(base), vdpa.ORDER
    kernel = base.vmlinux.parent
    return kernel, (kernel / ("net" if device.startswith("cuse") else "vhost")).read_text().split()


def initramfs(base, device, folder):
    """The guest lab's image, then what is ours: modules, programs, the script."""
    archive = image.Cpio()
    source, order = modules(base, device)
    for name in order:
        archive.file(f"modules/{name}.ko", (source / f"{name}.ko").read_bytes(), 0o644)
    archive.file("modules/order", "".join(f"{name}\n" for name in order).encode(), 0o644)
    programs = [program("RINGWAY", "ringway"), program("KERNEL_TESTS", "tests/kernel/ringway_kernel_tests")]
    if device == "vdpa":
        programs.append(image.tool("vdpa"))
    for path in programs:
        stripped = folder / path.name
        image.run("strip", "-o", stripped, path)
        archive.file(f"tools/{path.name}", stripped.read_bytes())
    for path in image.libraries(programs):
        archive.file(path, Path(path).read_bytes())
    archive.file("init", (lab.SCRIPTS / "init").read_bytes())
    archive.file("scenario.sh", (HERE / "guest" / "run.sh").read_bytes())
    path = folder / "initramfs.cpio"
    path.write_bytes(base.initramfs.read_bytes() + archive.finish())
    return path


def boot(device, bridge, options, folder, last):
    base = image.build()
    qemu = os.environ.get("QEMU") or "qemu-system-x86_64"
    if not shutil.which(qemu):
        raise lab.LabError(f"there is no program {qemu}: `./dev setup guest` puts it there")
    words = [f"lab.device={device}", f"lab.filter={options.filter or FILTERS[device][bridge]}"]
    if bridge:
        words.append("lab.bridge=1")
    machine = lab.bare_machine(qemu, base.vmlinux, initramfs(base, device, folder), " ".join(words))
    process = lab.spawn([*machine, "-no-reboot"],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def show(line):
        last.append(line)
        if options.verbose:
            print(f"  {line}", flush=True)

    console = lab.Console(process, show, lambda: None)
    try:
        follow(console)
    finally:
        process.kill()
        process.wait()
        console.close()


def follow(console):
    deadline = time.monotonic() + LIMIT
    passed = False
    while (line := console.line(deadline)) is not None:
        if line.startswith(lab.MARK + "PASS"):
            passed = True
        elif line.startswith(lab.MARK + "FAIL"):
            raise lab.LabError(f"the guest failed: {line.removeprefix(lab.MARK + 'FAIL ')}")
        else:
            console.judge(line)
    if not passed:
        raise lab.LabError("the machine ended before the tests were done")


def run(name, options):
    device, bridge, shows = SCENARIOS[name]
    started, last = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="ringway-kernel-") as folder:
        try:
            boot(device, bridge, options, Path(folder), last)
        except (lab.LabError, image.ImageError) as error:
            print(f"FAIL {name}: {error}")
            print("".join(f"  guest | {line}\n" for line in last[-40:]), end="")
            return lab.status_of(error)
    print(f"ok   {name} ({time.monotonic() - started:.1f} s): {shows}", flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[[], *SCENARIOS], help="default: all")
    parser.add_argument("--names", action="store_true", help="print the scenarios' names only")
    parser.add_argument("--filter", help="only these tests, as GoogleTest's --gtest_filter")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the guest's console")
    options = parser.parse_args()
    if options.names:
        print("\n".join(SCENARIOS))
        return 0
    return max([lab.patient(run, name, options) for name in options.scenario or SCENARIOS])


if __name__ == "__main__":
    sys.exit(main())
