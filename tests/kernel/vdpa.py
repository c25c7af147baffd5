"""The vDPA modules that Debian's kernel leaves out, built from its own source against its own headers: packages are
downloaded and unpacked beside the guest's kernel, nothing is installed."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

import image

ORDER = ["vhost_iotlb", "vhost", "irqbypass", "vringh", "vdpa", "vdpa_sim", "vdpa_sim_blk", "vdpa_sim_net", "vhost_vdpa"]

# What is built in which folder, and of what.
BUILT = {
    "vdpa": ("obj-m := vdpa.o\n", ["drivers/vdpa/vdpa.c"]),
    "vdpa_sim": ("obj-m := vdpa_sim.o vdpa_sim_blk.o vdpa_sim_net.o\n",
                 [f"drivers/vdpa/vdpa_sim/{name}" for name in ("vdpa_sim.c", "vdpa_sim.h", "vdpa_sim_blk.c",
                                                               "vdpa_sim_net.c")]),
    "vhost": ("obj-m := vringh.o vhost_vdpa.o\nvhost_vdpa-y := vdpa.o\n",
              [f"drivers/vhost/{name}" for name in ("vdpa.c", "vhost.h", "vringh.c")]),
}


def modules(base, say=print):
    """The folder with the modules of ORDER for the image's kernel; they are built if they are not there."""
    kernel = base.vmlinux.parent
    folder = kernel / "vdpa-modules"
    with open(image.CACHE / "vdpa.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((folder / f"{name}.ko").exists() for name in ORDER):
            say("building the vDPA modules that Debian's kernel leaves out")
            with tempfile.TemporaryDirectory(dir=image.CACHE) as work:
                build(base.release, kernel.name.partition("_")[2], Path(work))
                collect(Path(work), kernel, folder)
    return folder


def collect(work, kernel, folder):
    fresh = work / "fresh"
    fresh.mkdir()
    for path in (work / "build").glob("*/*.ko"):
        shutil.copy(path, fresh)
    for name in ORDER:
        if not (fresh / f"{name}.ko").exists():
            shutil.copy(kernel / f"{name}.ko", fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def build(release, version, work):
    series = ".".join(release.split(".")[:2])
    common = release.removesuffix("-amd64") + "-common"
    packages = [f"linux-headers-{release}", f"linux-headers-{common}", f"linux-kbuild-{series}", f"linux-source-{series}"]
    download([f"{name}={version}" for name in packages], work)
    for package in work.glob("linux-[hk]*.deb"):
        image.run("dpkg-deb", "-x", package, work)
    take_sources(next(work.glob("linux-source-*.deb")), series, work)
    headers = work / "usr" / "src" / f"linux-headers-{release}"
    # Debian's makefile names the other package's folder as it is when installed.
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{work}/usr/src/"))
    image.run("make", "-C", headers, f"M={work / 'build'}", "modules")


def download(packages, work):
    sandbox = ["-o", "APT::Sandbox::User=root"] if image.os.geteuid() == 0 else []
    image.run("apt-get", "-q", *sandbox, "download", *packages, cwd=work)


def take_sources(package, series, work):
    """Only the files that are built, out of an archive in an archive."""
    prefix = f"linux-source-{series}/"
    names = [prefix + name for _, files in BUILT.values() for name in files]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as outer, \
         subprocess.Popen(["tar", "-xO", f"./usr/src/linux-source-{series}.tar.xz"], stdin=outer.stdout,
                          stdout=subprocess.PIPE) as inner:
        image.run("tar", "-xJ", *names, cwd=work, stdin=inner.stdout)
    build_folder = work / "build"
    build_folder.mkdir()
    (build_folder / "Kbuild").write_text("obj-m := " + " ".join(f"{name}/" for name in BUILT) + "\n")
    for name, (rules, files) in BUILT.items():
        (build_folder / name).mkdir()
        (build_folder / name / "Kbuild").write_text(rules)
        for file in files:
            shutil.copy(work / prefix / file, build_folder / name)
