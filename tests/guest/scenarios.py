"""What is tested with a real guest. A scenario is a function on a Lab; its first line says what it shows."""

import json
import random
import time

from lab import MIB
from migration import Journey

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def fill(lab, *, queues=1, words="", serve_options=(), between=(), **options):
    """Boots a guest that makes, fills and checks the disk, then reads the disk's file on the host."""
    lab.serve(queues=queues, options=serve_options)
    for kind, *rest in between:
        lab.put_between(kind, *rest)
    disk_options = f",num-queues={queues}" + options.pop("disk_options", "")
    lab.boot_and_finish("fill.sh", disk_options=disk_options, processors=queues,
                        append=f"lab.queues={queues} {words}", **options)
    lab.check_disk()
    for one in lab.between:
        one.stop()
    lab.backend.stop()


@scenario
def split(lab):
    """split rings, one queue"""
    fill(lab, words="lab.split")


@scenario
def packed(lab):
    """packed rings, one queue"""
    lab.only_ringway("has no packed rings")
    fill(lab, words="lab.packed", disk_options=",packed=on")


@scenario
def split_queues(lab):
    """split rings, two queues, two processors"""
    fill(lab, queues=2, words="lab.split", disk_options=",queue-size=1024")


@scenario
def packed_queues(lab):
    """packed rings, two queues served by two workers"""
    lab.only_ringway("has no packed rings")
    fill(lab, queues=2, words="lab.packed", disk_options=",packed=on", serve_options=["--workers=2"])


@scenario
def plain(lab):
    """split rings without indirect descriptors and event index: long chains, every notification sent"""
    fill(lab, words="lab.split", disk_options=",indirect_desc=off,event_idx=off")


@scenario
def packed_plain(lab):
    """the same with packed rings"""
    lab.only_ringway("has no packed rings")
    fill(lab, words="lab.packed", disk_options=",packed=on,indirect_desc=off,event_idx=off")


@scenario
def legacy(lab):
    """a legacy device, as drivers before VIRTIO 1.0 see it"""
    lab.only_ringway("serves no legacy devices")
    fill(lab, words="lab.legacy lab.split", disk_options=",disable-modern=on,disable-legacy=off")


@scenario
def no_io_uring(lab):
    """a back-end where io_uring is forbidden"""
    lab.only_ringway("has no such option")
    fill(lab, words="lab.split", serve_options=["--no-io-uring"])


@scenario
def direct(lab):
    """the disk's file opened past the host's page cache"""
    lab.only_ringway("is not configured so here")
    fill(lab, words="lab.split", serve_options=["--direct"])


IOMMU = {"disk_options": ",iommu_platform=on,ats=on",
         "extra": ("-device", "intel-iommu,device-iotlb=on,intremap=off")}


@scenario
def iommu(lab):
    """a virtual IOMMU with device IOTLB, mappings torn down in batches"""
    lab.only_ringway("has no IOTLB")
    fill(lab, words="lab.split lab.iommu intel_iommu=on", **IOMMU)


@scenario
def iommu_strict(lab):
    """the same, every mapping torn down at once, packed rings, two queues"""
    lab.only_ringway("has no IOTLB")
    options = IOMMU | {"disk_options": IOMMU["disk_options"] + ",packed=on"}
    fill(lab, queues=2, words="lab.packed lab.iommu intel_iommu=on iommu.strict=1", **options)


def traced_messages(lab):
    """What a tracer with --json has seen, message by message; it must have nothing to object to."""
    lines = [json.loads(line) for line in lab.between[-1].output.read_text().splitlines()]
    doubts = [line for line in lines if "finding" in line]
    lab.require(not doubts, f"the tracer objects: {doubts}")
    return [line for line in lines if "message" in line]


@scenario
def traced(lab):
    """a tracer between, which sees the whole conversation and finds nothing wrong with it"""
    fill(lab, words="lab.split", between=[("trace", "--json", "--explain")])
    seen = traced_messages(lab)
    names = {message["name"] for message in seen}
    needed = {"GET_FEATURES", "SET_FEATURES", "SET_VRING_ADDR", "SET_VRING_KICK", "GET_VRING_BASE"}
    lab.require(needed <= names, f"the tracer has not seen {needed - names}")
    lab.require({"SET_MEM_TABLE", "ADD_MEM_REG"} & names, "the tracer has not seen memory")
    lab.require(all(message["complete"] for message in seen), "the tracer has seen messages that are not whole")


@scenario
def traced_iommu(lab):
    """the same with a virtual IOMMU, whose misses are asked for on the back-end channel"""
    lab.only_ringway("has no IOTLB")
    fill(lab, words="lab.split lab.iommu intel_iommu=on", between=[("trace", "--json", "--explain")], **IOMMU)
    seen = traced_messages(lab)
    misses = [one for one in seen if one["channel"] == "back-end" and one.get("name") == "BACKEND_IOTLB_MSG"]
    lab.require(misses, "the tracer has seen nothing of the back-end channel")


@scenario
def proxied(lab):
    """a proxy between that takes packed rings and the event index away"""
    features = "RING_PACKED,EVENT_IDX"
    fill(lab, words="lab.split", between=[("proxy", f"--mask={features}"), ("trace", "--json")])
    set_features = [one for one in traced_messages(lab) if one.get("name") == "SET_FEATURES" and not one["reply"]]
    lab.require(set_features, "nobody has set features")
    for message in set_features:
        agreed = message["fields"]["features"]["names"]
        lab.require(not {"RING_PACKED", "EVENT_IDX"} & set(agreed), f"masked features were agreed on: {agreed}")


@scenario
def proxied_iommu(lab):
    """two proxies, a virtual IOMMU, packed rings, two queues: misses and updates pass in both directions"""
    lab.only_ringway("has no IOTLB")
    options = IOMMU | {"disk_options": IOMMU["disk_options"] + ",packed=on"}
    fill(lab, queues=2, words="lab.packed lab.iommu intel_iommu=on", between=[("proxy",), ("proxy",)], **options)


def restart_under_guest(lab, socket):
    """Boots a guest on the socket, and has it ask for a restart of the back-end in the middle of its work."""
    machine = lab.boot("reconnect.sh", expected="ring restore failed",
                       extra=("-chardev", f"socket,id=disk,path={socket},reconnect=1"))

    def restart():
        lab.backend.stop()
        lab.serve()
        machine.wait_for_backend()
        return "yes"

    machine.run(restart=restart)
    machine.wait_for_end()
    lab.check_disk()
    lab.check_disk("more")


@scenario
def proxied_reconnect(lab):
    """the back-end is stopped and started behind a proxy under a guest that has the disk mounted and is quiet"""
    lab.serve()
    proxy = lab.put_between("proxy")
    restart_under_guest(lab, lab.front)
    proxy.stop()
    lab.backend.stop()


@scenario
def memory(lab):
    """memory plugged in and out while requests run"""
    lab.serve()
    machine = lab.boot("memory.sh", memory="512M,slots=16,maxmem=4G")
    pieces = 10

    def plug():
        for i in range(pieces):
            machine.qmp("object-add", **{"qom-type": "memory-backend-memfd", "id": f"m{i}", "size": 128 * MIB, "share": True})
            machine.qmp("device_add", driver="pc-dimm", id=f"dimm{i}", memdev=f"m{i}")
        return pieces

    def unplug():
        for i in range(pieces):
            machine.qmp("device_del", id=f"dimm{i}")
        return "yes"

    machine.run(plug=plug, unplug=unplug)
    machine.wait_for_end()
    lab.check_disk()
    lab.backend.stop()


@scenario
def read_only(lab):
    """a disk served read-only: mounts and reads, refuses writes, stays as it is"""
    lab.serve()
    first = lab.boot_and_finish("make.sh")
    lab.backend.stop()
    before = lab.disk_digest()
    lab.serve(read_only=True)
    lab.boot_and_finish("read_only.sh", {"digest": lambda: first.told["digest"]}, expected="Read-only|read-only")
    lab.backend.stop()
    lab.require(lab.disk_digest() == before, "the read-only disk changed")


@scenario
def discard(lab):
    """discard gives space back on the host, write-zeroes makes zeroes"""
    lab.serve()

    def check():
        lab.check_disk()
        return "yes"

    lab.boot_and_finish("discard.sh", {"usage": lambda: lab.disk_usage(), "check": check})
    lab.backend.stop()


@scenario
def resize(lab):
    """the disk grows while it is mounted and written to"""
    lab.new_disk(64)
    lab.serve()

    def grow():
        lab.backend.grow(192 * MIB)
        return 192 * MIB // 512

    lab.boot_and_finish("resize.sh", {"grow": grow})
    lab.check_disk()
    lab.check_disk("more")
    lab.backend.stop()


@scenario
def cache(lab):
    """the write cache switched off and on by the guest"""
    lab.serve()
    lab.boot_and_finish("cache.sh")
    lab.check_disk()
    lab.backend.stop()


@scenario
def reboot(lab):
    """the guest resets itself with requests in flight, boots again and finds its files"""
    lab.serve()
    machine = lab.boot("reboot.sh", reboots=True, expected="I/O error")
    boots = counter()

    def boot():
        number = boots()
        if number == 2:
            machine.expected = None
        return number

    machine.run(boot=boot, digest=lambda: machine.told["digest"])
    machine.wait_for_end()
    lab.check_disk()
    lab.check_disk("more")
    lab.backend.stop()


@scenario
def restart(lab):
    """the back-end is stopped and started between two machines"""
    lab.serve()
    first = lab.boot_and_finish("make.sh")
    lab.backend.stop()
    lab.check_disk()
    lab.serve()
    lab.boot_and_finish("check.sh", {"digest": lambda: first.told["digest"]})
    lab.backend.stop()


@scenario
def next_machine(lab):
    """one machine leaves, another comes, the back-end stays"""
    lab.serve()
    first = lab.boot_and_finish("make.sh")
    lab.boot_and_finish("check.sh", {"digest": lambda: first.told["digest"]}, disk_options=",packed=on")
    lab.backend.stop()


@scenario
def reconnect(lab):
    """the back-end is stopped and started under a guest that has the disk mounted and is quiet"""
    lab.serve()
    restart_under_guest(lab, lab.socket)
    lab.backend.stop()


def upgrade_under_guest(lab, **options):
    """Boots a guest that writes without a pause, and replaces the program behind its disk all the time."""
    lab.only_ringway("cannot be upgraded at work")
    lab.serve()
    pauses = []

    def upgrade():
        pauses.append(lab.backend.upgrade())
        return "yes"

    machine = lab.boot_and_finish("upgrade.sh", {"upgrade": upgrade}, **options)
    lab.require(int(machine.told["upgrades"]) >= 3, f"only {machine.told['upgrades']} upgrades")
    lab.check_disk()
    lab.check_disk("more")
    lab.backend.stop()
    pauses.sort()
    print(f"{len(pauses)} upgrades, pause median {pauses[len(pauses) // 2]} ms, longest {pauses[-1]} ms")


@scenario
def upgraded(lab):
    """the program is replaced again and again while the guest writes"""
    upgrade_under_guest(lab)


@scenario
def upgraded_packed(lab):
    """the same with packed rings behind a virtual IOMMU"""
    upgrade_under_guest(lab, append="lab.packed lab.iommu intel_iommu=on", **IOMMU | {
        "disk_options": IOMMU["disk_options"] + ",packed=on"})


def killed_under_guest(lab, words, **options):
    """Boots a guest in which fio writes and checks what it wrote while the back-end is killed 20 times."""
    lab.serve()
    machine = lab.boot("killed.sh", expected="ring restore failed", append=words,
                       extra=("-chardev", f"socket,id=disk,path={lab.socket},reconnect=1"), **options)

    def kills():
        for _ in range(20):
            time.sleep(random.uniform(0.1, 0.8))
            lab.backend.kill()
            lab.serve()
            machine.wait_for_backend()
        return "yes"

    machine.run(kills=kills)
    machine.wait_for_end()
    lab.check_disk()
    lab.require(int(machine.told["rounds"]) > 1, "the guest has written nothing meanwhile")
    lab.backend.stop()


@scenario
def killed(lab):
    """the back-end is killed 20 times under fio that writes and verifies, split rings"""
    lab.only_ringway("is not expected to survive this")
    killed_under_guest(lab, "lab.split")


@scenario
def killed_packed(lab):
    """the same with packed rings"""
    lab.only_ringway("has no packed rings")
    killed_under_guest(lab, "lab.packed", disk_options=",packed=on")


def counter():
    """A function that returns 1, then 2, ..."""
    numbers = iter(range(1, 1000))
    return lambda: next(numbers)


# ---- migration: each site has a QEMU and a back-end of its own; the disk is one file


def journey(lab, moves, *, queues=1, words="", serve_options=(), **options):
    """Boots a guest that writes all the time, moves it as `moves` say, and checks what it wrote."""
    lab.only_ringway("does not leave its disk to another process")
    trip = Journey(lab, queues=queues, serve_options=serve_options, append=words, **options)
    trip.go(moves)
    lab.check_disk("live")
    lab.check_disk()


def precopy(trip):
    trip.move()


@scenario
def migrate(lab):
    """precopy from one host to another, the guest writing all the time"""
    journey(lab, [precopy], words="lab.split")


@scenario
def migrate_packed(lab):
    """the same with packed rings and two queues"""
    journey(lab, [precopy], queues=2, words="lab.packed", disk_options=",packed=on")


@scenario
def migrate_there_and_back(lab):
    """from A to B, and back to the first back-end, which has waited"""
    journey(lab, [precopy, precopy], words="lab.split")


@scenario
def migrate_aborted(lab):
    """given up half way, the guest goes on where it was; then it moves after all"""
    journey(lab, [lambda trip: trip.give_up(), precopy], words="lab.split")


@scenario
def migrate_postcopy(lab):
    """the guest moves first and its memory follows"""
    journey(lab, [lambda trip: trip.move(postcopy=True)], words="lab.split", serve_options=["--postcopy"])
