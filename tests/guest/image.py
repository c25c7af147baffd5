#!/usr/bin/env python3
"""The guest image: Debian's own kernel, and an initramfs of busybox, fio and a few file-system tools.

The kernel package is downloaded with apt and unpacked, never installed. Everything lands in build/guest and is
made again only when an input changes. `image.py` makes it; `image.py --update` takes the kernel apt offers now.
"""

import argparse
import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("RINGWAY_GUEST_DIR", HERE.parents[1] / "build" / "guest"))

KERNEL = "linux-image-amd64"
# What a guest loads, by the file that has the names in loading order.
MODULES = {"order": ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"],
           "vhost": ["configfs", "crc32c_generic", "tun", "vhost_net", "vhost_vsock", "vhost_scsi"],
           "vdpa": ["vhost", "irqbypass"],
           "bench": ["configfs", "crc32c_generic", "tun", "vhost_net", "pktgen"],
           "guest_net": ["virtio_pci", "virtio_net", "8021q"],
           "net": ["virtio_pci", "virtio_net", "cuse", "tun", "vhost_net"]}
MODULE_FOLDERS = ("/drivers/virtio/", "/drivers/block/", "/fs/", "/lib/", "/crypto/", "/block/", "/drivers/vhost/",
                  "/drivers/net/tun.ko", "/drivers/net/tap.ko", "/drivers/target/target_core_mod", "/drivers/scsi/scsi_",
                  "/net/vmw_vsock/", "/virt/lib/", "/drivers/net/virtio_net.ko", "/drivers/net/net_failover.ko",
                  "/net/core/", "/net/8021q/", "/net/802/", "/net/llc/")
TOOLS = ["mke2fs", "e2fsck", "resize2fs", "blkdiscard", "lsblk", "fio"]
# Libraries of fio's engines for other than local disks: with all that they need they are larger than everything else
# together. The guest gets empty ones in their place.
HOLLOW = ["libgfapi.", "libnbd.", "libibverbs.", "librdmacm.", "librados.", "librbd.", "libpmem"]
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ImageError(Exception):
    """Something is missing; the text says what and how to get it."""


@dataclass(frozen=True)
class Image:
    release: str  # as `uname -r` prints it
    vmlinux: Path
    initramfs: Path


class Cpio:
    """An initramfs archive ("newc") in memory. Archives may follow each other in one file, the later one wins."""

    def __init__(self):
        self.parts = []
        self.names = set()

    def file(self, name, data, mode=0o755):
        self._entry(name, 0o100000 | mode, data)

    def link(self, name, target):
        self._entry(name, 0o120777, target.encode())

    def folder(self, name):
        self._entry(name, 0o040755)

    def console(self, name):
        self._entry(name, 0o020600, rdev=(5, 1))

    def finish(self):
        self._append("TRAILER!!!", 0, b"", (0, 0))
        return b"".join(self.parts)

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        name = name.strip("/")
        if name in self.names:
            return
        if os.path.dirname(name):
            self.folder(os.path.dirname(name))
        self.names.add(name)
        self._append(name, mode, data, rdev)

    def _append(self, name, mode, data, rdev):
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self.parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise ImageError(f"`{' '.join(map(str, command))}` failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def tool(name):
    path = shutil.which(name, path=SEARCH)
    if not path:
        raise ImageError(f"{name} is not installed; `./dev setup` installs what the guest image is made of "
                         "(tests/guest/packages lists it)")
    return Path(path)


def kernel_offered():
    """The package that Debian's kernel meta package depends on now, and its version."""
    fields = run("apt-cache", "show", "--no-all-versions", KERNEL)
    found = re.search(r"^Depends:.*?(linux-image-[\w.+-]+-amd64)(?: \(= ([^)]+)\))?", fields, re.MULTILINE)
    if not found:
        raise ImageError(f"apt offers no {KERNEL} here; the lab needs a Debian 12 (amd64) package source")
    return found[1], found[2] or ""


def complete(folder):
    return all((folder / name).exists() for name in ["vmlinux", *MODULES])


def newest_kernel():
    kept = sorted(CACHE.glob("kernel-*/vmlinux"), key=lambda path: path.stat().st_mtime)
    return kept[-1].parent if kept and complete(kept[-1].parent) else None


def fetch_kernel(say):
    package, version = kernel_offered()
    folder = CACHE / f"kernel-{package.removeprefix('linux-image-')}_{version}"
    if complete(folder):
        return folder
    say(f"downloading Debian's kernel: {package} {version}")
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        run("apt-get", "-q", *sandbox, "download", package, cwd=work)
        unpacked = Path(work) / "kernel"
        unpack_kernel(next(Path(work).glob("*.deb")), unpacked)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def unpack_kernel(package, folder):
    """Leaves the uncompressed kernel, which QEMU starts through its PVH entry (a guest without acceleration needs
    seconds to unpack it by itself), and the modules that MODULES need, with their loading order."""
    compressed, modules = None, {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as deb:
        with tarfile.open(fileobj=deb.stdout, mode="r|") as files:
            for file in files:
                if "/boot/vmlinuz-" in file.name:
                    compressed = files.extractfile(file).read()
                elif file.name.endswith(".ko") and any(part in file.name for part in MODULE_FOLDERS):
                    modules[module_name(file.name)] = files.extractfile(file).read()
    if deb.returncode or not compressed:
        raise ImageError(f"{package.name} holds no kernel")
    folder.mkdir()
    for file, wanted in MODULES.items():
        order = module_order(modules, wanted)
        for name in order:
            (folder / f"{name}.ko").write_bytes(modules[name])
        (folder / file).write_text("\n".join(order) + "\n")
    (folder / "vmlinux").write_bytes(uncompressed(compressed))


def module_name(path):
    return os.path.basename(path).removesuffix(".ko").replace("-", "_")


def module_order(modules, wanted):
    order = []

    def add(name):
        if name in order:
            return
        if name not in modules:
            raise ImageError(f"the kernel package has no module {name}")
        depends = re.search(rb"\0depends=([^\0]*)", modules[name])[1].decode()
        for needed in filter(None, depends.split(",")):
            add(needed.replace("-", "_"))
        order.append(name)

    for name in wanted:
        add(name)
    return order


def uncompressed(bzimage):
    """The ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length)."""
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    kernel = lzma.LZMADecompressor().decompress(bzimage[start:start + length])
    if not kernel.startswith(b"\x7fELF"):
        raise ImageError("the kernel is not packed as Debian 12 packs it (xz, ELF)")
    return kernel


def needed(program):
    """Names of the libraries that a program or library asks for itself."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--dynamic", "--wide", program))


def is_hollow(name):
    return name.startswith(tuple(HOLLOW))


def libraries(programs):
    """Every shared library that the programs load, but for hollow ones and theirs, by absolute path."""
    places = {os.path.basename(path): path for program in programs for path in re.findall(r"(/\S+) \(0x", run("ldd", program))}
    found, left = set(), list(programs)
    while left:
        for name in needed(left.pop()):
            path = places[name]
            if not is_hollow(name) and path not in found:
                found.add(path)
                left.append(path)
    return sorted(found)


def hollow_libraries(program):
    """Names of the hollow libraries that a program asks for, and for each one in which every function does nothing."""
    wanted = re.findall(r" [Uw] (\S+)", run("nm", "--dynamic", "--undefined-only", program))
    owners = {}  # by version
    for part in re.split(r"File: ", run("readelf", "--version-info", "--wide", program))[1:]:
        owners |= dict.fromkeys(re.findall(r"Name: (\S+)", part), part.split()[0])
    functions = {name: {"": []} for name in filter(is_hollow, needed(program))}
    for name, _, version in (symbol.partition("@") for symbol in wanted):
        if owners.get(version) in functions:
            functions[owners[version]].setdefault(version, []).append(name)
        elif not version:  # anybody's: who really has it comes before
            for versions in functions.values():
                versions[""].append(name)
    return {name: hollow_library(versions) for name, versions in functions.items()}


def hollow_library(versions):
    names = {name for some in versions.values() for name in some}
    with tempfile.TemporaryDirectory() as work:
        source, script, library = (Path(work) / name for name in ("hollow.c", "hollow.map", "hollow.so"))
        source.write_text("".join(f"void {name}(void) {{}}\n" for name in sorted(names)))
        script.write_text("".join(f"{version} {{ {' '.join(f'{name};' for name in some)} }};\n"
                                  for version, some in versions.items() if version))
        scripts = [f"-Wl,--version-script={script}"] if len(versions) > 1 else []
        run("c++", "-x", "c", "-w", "-shared", "-nostdlib", "-fno-builtin", source, "-o", library, *scripts)
        return library.read_bytes()


def initramfs(kernel):
    archive = Cpio()
    for name in ("dev", "proc", "sys", "tmp", "mnt", "etc"):
        archive.folder(name)
    archive.console("dev/console")
    archive.link("etc/mtab", "/proc/self/mounts")
    for name in TOOLS:
        archive.file(f"tools/{name}", tool(name).read_bytes())
    programs = [tool(name) for name in TOOLS]
    for path in libraries(programs):
        archive.file(path, Path(path).read_bytes())
    for name, data in hollow_libraries(tool("fio")).items():
        archive.file(f"lib/x86_64-linux-gnu/{name}", data)
    busybox = tool("busybox")
    archive.file("bin/busybox", busybox.read_bytes())
    for applet in run(busybox, "--list-full").split():
        archive.link(applet, "/bin/busybox")
    order = (kernel / "order").read_text()
    for name in order.split():
        archive.file(f"modules/{name}.ko", (kernel / f"{name}.ko").read_bytes(), 0o644)
    archive.file("modules/order", order.encode(), 0o644)
    return archive.finish()


def fingerprint(kernel):
    stats = [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in map(tool, [*TOOLS, "busybox"])]
    source = Path(__file__).read_bytes()
    return hashlib.sha256(json.dumps([kernel.name, stats]).encode() + source).hexdigest()


def build(update=False, say=print):
    """Makes the image if it is missing or an input changed. Safe to call from several processes at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernel = None if update else newest_kernel()
        kernel = kernel or fetch_kernel(say)
        target, stamp, wanted = CACHE / "initramfs.cpio", CACHE / "stamp", fingerprint(kernel)
        if not (target.exists() and stamp.exists() and stamp.read_text() == wanted):
            say("packing the guest's initramfs")
            fresh = CACHE / "initramfs.new"
            fresh.write_bytes(initramfs(kernel))
            fresh.rename(target)
            stamp.write_text(wanted)
    return Image(kernel.name.removeprefix("kernel-").split("_")[0], kernel / "vmlinux", target)


def main():
    arguments = argparse.ArgumentParser(description="Makes the guest image of the tests and the demo.")
    arguments.add_argument("--update", action="store_true", help="take the kernel that apt offers now")
    try:
        image = build(arguments.parse_args().update)
    except ImageError as error:
        sys.exit(f"guest image: {error}")
    print(f"guest image: Debian kernel {image.release}, {image.initramfs}")


if __name__ == "__main__":
    main()
