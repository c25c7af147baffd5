#!/usr/bin/env python3
"""fuzz/seeds.py: writes the seeds that are worth reading: inputs that do something sensible, for the fuzzer to spoil.

Each function below makes the inputs of one target; the layouts are those that the target's source takes apart.
The files go to fuzz/corpus/TARGET/seed-NAME."""

import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"

NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15


def emit(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


def part(data):
    return bytes([len(data)]) + data


class Image:
    """Shared memory as SharedImage::fill takes it; offset == guest address below 0x5000."""

    def __init__(self):
        self.bytes = bytearray()

    def put(self, offset, data):
        self.bytes.extend(bytes(max(0, offset + len(data) - len(self.bytes))))
        self.bytes[offset:offset + len(data)] = data


def descriptor(address, length, flags=0, last=0, order="<"):
    return struct.pack(order + "QIHH", address, length, flags, last)


# ---- rings (ring.cc) --------------------------------------------------------------------------------------------------

INDIRECT_OK, EVENT_IDX, IN_ORDER, BIG_ENDIAN = 1, 2, 4, 8
IOTLB, THREAD = 1, 2
POP, POP_MANY, USE, PUBLISH, ENABLE, DISABLE, PUSH_BACK, SET_VIEW = range(8)
DESC, DRIVER, DEVICE, TABLE, DATA = 0x0, 0x100, 0x140, 0x200, 0x600
INFLIGHT = 0x1000


def use(which, how=1):
    return bytes([USE, which, how])


SERVE_ALL = bytes([DISABLE, POP_MANY]) + use(0) + use(1) + use(0, 3) + bytes([PUBLISH, ENABLE, POP, PUSH_BACK, POP]) + \
    use(0, 2) + bytes([SET_VIEW, POP_MANY]) + use(0, 8) * 3 + bytes([PUBLISH, ENABLE])


def ring(size_code, image, format=0, memory=0, base=0, operations=SERVE_ALL, changes=b"", iotlb=None, inflight=0):
    header = struct.pack("<BBBBIHHHH", size_code, format, memory | (IOTLB if iotlb is not None else 0), 0, base,
                         DESC // 16, DRIVER // 4, DEVICE // 4, inflight // 8)
    return header + part(changes) + part(operations) + (part(iotlb) if iotlb is not None else b"") + bytes(image.bytes)


def change(after, where, value):
    """After so many loads from the image, one byte of it becomes another."""
    return struct.pack("<BHB", after, where, value)


# A chain: [(address, length, writable)].
SIMPLE = [(DATA, 16, False), (DATA + 0x200, 512, True), (DATA + 0x500, 1, True)]
OVER_REGIONS = [(0x2ff0, 0x20, False), (0x2ff0, 0x20, True)]
EMPTY_PIECES = [(DATA, 0, False), (DATA, 16, False), (DATA, 0, True), (DATA, 1, True)]
MANY = [(DATA + 32 * i, 16, i >= 6) for i in range(12)]


def split_table(chain, first, order="<"):
    """Descriptors at indices first, first + 1, ..."""
    data = b""
    for i, (address, length, writable) in enumerate(chain):
        following = i + 1 < len(chain)
        flags = (NEXT if following else 0) | (WRITE if writable else 0)
        data += descriptor(address, length, flags, first + i + 1 if following else 0, order)
    return data


def split_image(chains, order="<", indirect=False, extra_avail=0, base=0, size=16):
    image = Image()
    heads, index = [], 0
    for number, chain in enumerate(chains):
        heads.append(index)
        if indirect:
            at = TABLE + 0xc0 * number
            image.put(at, split_table(chain, 0, order))
            image.put(DESC + 16 * index, descriptor(at, 16 * len(chain), INDIRECT, 0, order))
            index += 1
        else:
            image.put(DESC + 16 * index, split_table(chain, index, order))
            index += len(chain)
    image.put(DRIVER, struct.pack(order + "HH", 0, (base + len(heads) + extra_avail) & 0xffff))
    for i, head in enumerate(heads):
        image.put(DRIVER + 4 + 2 * ((base + i) % size), struct.pack(order + "H", head))
    image.put(DEVICE, bytes(4))
    return image


def split_seeds():
    size = 4  # 16 entries
    several = [SIMPLE, OVER_REGIONS, EMPTY_PIECES]

    def seed(name, image, **rest):
        emit("split_ring", name, ring(size, image, **rest))

    seed("direct", split_image(several))
    seed("indirect", split_image([SIMPLE, MANY, OVER_REGIONS], indirect=True), format=INDIRECT_OK)
    seed("event-idx", split_image(several), format=EVENT_IDX)
    seed("in-order", split_image(several), format=IN_ORDER | EVENT_IDX)
    seed("big-endian", split_image(several, order=">"), format=BIG_ENDIAN)
    seed("index-wraps", split_image(several, base=0xfffe), base=0xfffe)
    seed("spilled", split_image([MANY]))
    seed("index-jumps", split_image([SIMPLE], extra_avail=17))
    seed("same-head-again", split_image([SIMPLE], extra_avail=1))
    loop = split_image([SIMPLE])
    loop.put(DESC + 32, descriptor(DATA, 1, NEXT, 0))
    seed("loop", loop)
    later = split_image([SIMPLE, SIMPLE, SIMPLE], extra_avail=1)
    later.put(DRIVER + 4 + 2 * 3, struct.pack("<H", 99))
    seed("in-order-breaks-with-gaps", later, format=IN_ORDER, operations=bytes([POP_MANY]) + use(1) + bytes([POP]))
    mixed = split_image([SIMPLE], indirect=False)
    mixed.put(TABLE, split_table(SIMPLE, 0))
    mixed.put(DESC + 16, descriptor(TABLE, 48, INDIRECT))
    seed("direct-then-indirect", mixed, format=INDIRECT_OK)
    odd = split_image([SIMPLE])
    odd.put(DESC, descriptor(0x2ff8, 48, INDIRECT))
    odd.put(0x2ff8, split_table(SIMPLE, 0))
    seed("table-over-regions", odd, format=INDIRECT_OK)
    unaligned = split_image([SIMPLE])
    unaligned.put(DESC, descriptor(TABLE + 3, 48, INDIRECT))
    unaligned.put(TABLE + 3, split_table(SIMPLE, 0))
    seed("table-unaligned", unaligned, format=INDIRECT_OK)
    seed("length-grows", split_image([SIMPLE, SIMPLE]), changes=change(6, DESC + 8, 0xff) + change(1, DESC + 11, 0xff))
    seed("index-changes", split_image(several), changes=change(2, DRIVER + 2, 0xff) + change(3, DRIVER + 4, 9))
    seed("thread", split_image(several), memory=THREAD, changes=change(0, DESC + 14, 1) + change(0, DRIVER + 2, 4))
    # Page, target: the whole image at itself, in 32 KiB.
    identity = bytes([0xc0, 2])
    seed("iotlb", split_image([SIMPLE, MANY]), iotlb=identity)
    seed("iotlb-miss", split_image([SIMPLE, [(0x9000, 16, False)]]), iotlb=identity)

    seed("inflight-fresh", split_image(several), inflight=INFLIGHT)
    taken = split_image(several)
    taken.put(DEVICE + 2, struct.pack("<H", 1))  # one of them is used, and its batch not cleared
    taken.put(INFLIGHT, struct.pack("<QHHHH", 0, 1, 16, 0, 0))
    for count, head in enumerate((0, 3, 5)):
        taken.put(INFLIGHT + 16 + 16 * head, struct.pack("<B5xHQ", 1, 0, 7 - count))
    seed("inflight-taken", taken, inflight=INFLIGHT)


def packed_image(chains, indirect=False, wrap=True, first=0, size=16):
    image = Image()
    image.put(DESC, bytes(16 * size))
    position = first
    for number, chain in enumerate(chains):
        entries = chain
        if indirect:
            at = TABLE + 0xc0 * number
            image.put(at, b"".join(descriptor(a, n, WRITE if w else 0) for a, n, w in chain))
            entries = [(at, 16 * len(chain), False)]
        for i, (address, length, writable) in enumerate(entries):
            flags = (NEXT if i + 1 < len(entries) else 0) | (WRITE if writable else 0) | (INDIRECT if indirect else 0)
            flags |= AVAIL if wrap else USED
            image.put(DESC + 16 * position, struct.pack("<QIHH", address, length, number, flags))
            position += 1
            if position == size:
                position, wrap = 0, not wrap
    image.put(DRIVER, bytes(4))
    image.put(DEVICE, bytes(4))
    return image


def packed_seeds():
    size = 15  # 16 entries
    start = 0x80008000
    several = [SIMPLE, OVER_REGIONS, EMPTY_PIECES]

    def seed(name, image, size_code=size, base=start, **rest):
        emit("packed_ring", name, ring(size_code, image, base=base, **rest))

    seed("direct", packed_image(several))
    seed("indirect", packed_image([SIMPLE, MANY, OVER_REGIONS], indirect=True), format=INDIRECT_OK)
    seed("event-idx", packed_image(several), format=EVENT_IDX)
    seed("in-order", packed_image(several), format=IN_ORDER | EVENT_IDX)
    seed("wraps", packed_image(several, first=14), base=0x800e800e)
    seed("wraps-odd-size", packed_image(several, first=10, size=11), size_code=10, base=0x800a800a)
    seed("second-lap", packed_image(several, wrap=False), base=0)
    seed("in-flight-base", packed_image(several, first=4), base=0x80008004)
    seed("spilled", packed_image([MANY]))
    all_available = packed_image([])
    for i in range(16):
        all_available.put(DESC + 16 * i, struct.pack("<QIHH", DATA, 16, i, AVAIL))
    seed("all-available", all_available)
    endless = packed_image([])
    for i in range(16):
        endless.put(DESC + 16 * i, struct.pack("<QIHH", DATA, 16, i, AVAIL | NEXT))
    seed("meets-its-own-head", endless)
    later = packed_image([SIMPLE, SIMPLE, SIMPLE])
    later.put(DESC + 16 * 9, struct.pack("<QIHH", DATA, 16, 99, AVAIL))
    seed("in-order-breaks-with-gaps", later, format=IN_ORDER, operations=bytes([POP_MANY]) + use(1) + bytes([POP]))
    same = packed_image([SIMPLE, SIMPLE])
    same.put(DESC + 16 * 5 + 12, struct.pack("<H", 0))
    seed("same-id-again", same)
    seed("length-grows", packed_image([SIMPLE, SIMPLE]), changes=change(6, DESC + 8, 0xff) + change(1, DESC + 14, 0xff))
    seed("thread", packed_image(several), memory=THREAD, changes=change(0, DESC + 14, 1) + change(0, DESC + 31, 0x80))
    seed("iotlb", packed_image([SIMPLE, MANY]), iotlb=bytes([0xc0, 2]))
    seed("inflight-fresh", packed_image(several), inflight=INFLIGHT)
    # The first chain is in flight; the second was used, counted, and not shown.
    taken = packed_image(several)
    taken.put(INFLIGHT, struct.pack("<QHHHHHHBB8x", 0, 1, 16, 3, 5, 2, 0, 1, 1))
    for i in range(16):
        taken.put(INFLIGHT + 32 + 32 * i + 2, struct.pack("<H", i + 1))
    for first, chain in ((0, SIMPLE), (3, OVER_REGIONS)):
        at = INFLIGHT + 32 + 32 * first
        taken.put(at, struct.pack("<BxHHHQ", 1, first + 1, first + len(chain) - 1, len(chain), 9 - first))
        for i, (address, length, writable) in enumerate(chain):
            flags = (NEXT if i + 1 < len(chain) else 0) | (WRITE if writable else 0) | AVAIL
            taken.put(at + 32 * i + 16, struct.pack("<HHIQ", first // 3, flags, length, address))
    seed("inflight-taken", taken, inflight=INFLIGHT)


# ---- the driver half (driver.cc) --------------------------------------------------------------------------------------

ADD, SHOW, TAKE, TAKE_ALL, ENABLE_CALLS, DISABLE_CALLS, WRITE_AREA = range(7)


def add(readable, writable):
    return bytes([ADD, readable | writable << 4])


def write_area(offset, data):
    return bytes([WRITE_AREA]) + struct.pack("<HB", offset, len(data)) + data


def driver(size_code, operations, format=0, table_entries=0, base=0, flags=0, changes=b""):
    return struct.pack("<BBBBI", size_code, format, table_entries, flags, base) + part(changes) + operations


def split_used(index, entries, at=0x140):
    """The used ring of 16 entries, from index 0: [(id, written)]. 0x140: behind 256 bytes of descriptors and 64 of avail ring."""
    data = b"".join(write_area(at + 4 + 8 * i, struct.pack("<II", *entry)) for i, entry in enumerate(entries))
    return data + write_area(at, struct.pack("<HH", 0, index))


def driver_seeds():
    def split(name, operations, **rest):
        emit("split_driver", name, driver(4, operations, **rest))

    three = add(1, 1) + add(2, 1) + add(0, 1) + bytes([SHOW])
    split("in-turn", three + split_used(3, [(0, 8), (2, 0), (5, 1)]) + bytes([TAKE_ALL, ENABLE_CALLS]) + three)
    split("out-of-turn", three + split_used(3, [(5, 8), (0, 0), (2, 1)]) + bytes([TAKE_ALL]))
    split("indirect", add(1, 2) + add(1, 1) + bytes([SHOW]) + split_used(2, [(1, 4), (0, 4)]) + bytes([TAKE_ALL]),
          format=INDIRECT_OK, table_entries=4)
    split("in-order", three + split_used(3, [(5, 1)]) + bytes([TAKE_ALL]), format=IN_ORDER)
    split("never-given", three + split_used(1, [(1, 0)]) + bytes([TAKE, TAKE]))
    split("twice", three + split_used(2, [(0, 0), (0, 0)]) + bytes([TAKE_ALL]))
    split("index-jumps", three + split_used(4, []) + bytes([TAKE]))
    split("overlong", three + split_used(1, [(0, 0xffffffff)]) + bytes([TAKE]))
    split("id-changes", three + split_used(1, [(0, 0)]) + bytes([TAKE, TAKE]), changes=change(1, 0x30 + 0x144, 9))

    def packed(name, operations, **rest):
        emit("packed_driver", name, driver(15, operations, base=0x80008000, **rest))

    def back(position, number, written, wrap=True):
        flags = (AVAIL | USED) if wrap else 0
        return write_area(16 * position + 8, struct.pack("<IHH", written, number, flags))

    packed("in-turn", three + back(0, 0, 8) + back(2, 1, 0) + back(5, 2, 1) + bytes([TAKE_ALL, ENABLE_CALLS]) + three)
    packed("out-of-turn", three + back(0, 2, 8) + back(1, 0, 0) + back(3, 1, 1) + bytes([TAKE_ALL]))
    packed("in-order", three + back(0, 2, 8) + bytes([TAKE_ALL]), format=IN_ORDER)
    packed("indirect", add(1, 2) + add(1, 1) + bytes([SHOW]) + back(0, 1, 4) + back(1, 0, 4) + bytes([TAKE_ALL]),
           format=INDIRECT_OK, table_entries=4)
    packed("never-given", three + back(0, 9, 0) + bytes([TAKE, TAKE]))
    packed("twice", three + back(0, 0, 0) + back(2, 0, 0) + bytes([TAKE_ALL]))
    packed("overlong", three + back(0, 0, 0xffffffff) + bytes([TAKE]))


# ---- the network device (net.cc) --------------------------------------------------------------------------------------

TRANSMIT, RECEIVE, CONTROL = 0, 1, 2
BIG_ENDIAN_NET, CHANGING_NET, HOLDS = 1, 2, 4
MODERN_NET, MERGEABLE = 1 << 32, 1 << 15
OFFLOADS = 0x7f83 | 1 << 54 | 1 << 55 | 1 << 56 | MODERN_NET
COMMANDS = OFFLOADS | 1 << 2 | 0x1be << 16 | 1 << 22 | 1 << 57 | 1 << 60


def net_seeds():
    def seed(name, role, chains, contents=(), flags=0, features=OFFLOADS, head=0, script=b"", order="<"):
        image = split_image(chains, order)
        for at, content in contents:
            image.put(at, content)
        emit("net", name, struct.pack("<BBBBQ", role, flags, head, 0, features) + part(b"") + part(script) + bytes(image.bytes))

    def header(flags=0, gso=0, hdr_len=0, gso_size=0, start=0, offset=0, order="<"):
        return struct.pack(order + "BBHHHHH", flags, gso, hdr_len, gso_size, start, offset, 0)

    def command(number, *fields):
        """Class, command and data of the number-th command, its answer, and what to put where."""
        body, at = b"".join(fields), DATA + 0x40 * number
        return [(at, len(body), False), (STATUS + number, 1, True)], (at, body)

    frame = [(DATA, 12, False), (0x1800, 1500, False)]
    seed("transmit", TRANSMIT, [frame, [(DATA, 60, False)]])
    seed("transmit-tso", TRANSMIT, [frame], [(DATA, header(1, 1, 54, 1448, 34, 16))])
    seed("transmit-outside", TRANSMIT, [frame], [(DATA, header(1, 0, 0, 0, 1511, 2))])
    seed("transmit-held", TRANSMIT, [frame, frame], flags=HOLDS, head=18)
    seed("transmit-legacy", TRANSMIT, [[(DATA, 70, False)]], [(DATA, header(1, 0, 0, 0, 34, 6, ">"))], flags=BIG_ENDIAN_NET,
         features=1, order=">")
    buffers = [[(0x1800 + 0x200 * i, 0x200, True)] for i in range(8)]
    arrivals = struct.pack("<HBHBHHB", 100, 0, 1000, 8, 700, 1500, 1)
    seed("receive", RECEIVE, buffers, script=arrivals)
    seed("receive-merged", RECEIVE, buffers, features=OFFLOADS | MERGEABLE, script=arrivals)
    seed("receive-runts", RECEIVE, [[(0x1800, 1, True)], [(0x1801, 11, True)]] + buffers, script=arrivals)
    mac = bytes(range(2, 8))
    chains, contents = zip(*[
        command(0, b"\0\0\1"), command(1, b"\1\1", mac), command(2, b"\1\0", struct.pack("<I", 1), mac, struct.pack("<I", 0)),
        command(3, b"\2\0", struct.pack("<H", 100)), command(4, b"\4\0", struct.pack("<H", 2)),
        command(5, b"\5\0", struct.pack("<Q", 2))])
    seed("commands", CONTROL, list(chains), list(contents), features=COMMANDS)
    rss = command(0, b"\4\1", struct.pack("<IHHHHHB", 0x3f, 1, 0, 0, 3, 4, 8), bytes(8))
    config = command(1, b"\4\2", struct.pack("<I8xB", 1, 8), bytes(8))
    seed("rss", CONTROL, [rss[0], config[0]], [rss[1], config[1]], features=COMMANDS)


# ---- block requests (blk.cc) ------------------------------------------------------------------------------------------

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, SECURE_ERASE = 0, 1, 4, 8, 11, 13, 14
READ_ONLY, BIG_ENDIAN_DISK, CHANGING, WRITE_THROUGH = 1, 2, 4, 8
ALL_RANGES = 1 << 13 | 1 << 14 | 1 << 16 | 1 << 9  # DISCARD, WRITE_ZEROES, SECURE_ERASE, FLUSH
STATUS = 0x1400


def request(number, kind, sector=0, data=0, ranges=(), order="<"):
    """Header, data and status of the number-th request, and what to put where."""
    at = DATA + 0x40 * number
    body = struct.pack(order + "IIQ", kind, 0, sector)
    body += b"".join(struct.pack(order + "QII", *one) for one in ranges)
    chain = [(at, len(body), False)]
    if data:
        chain.append((0x1800, data, kind != OUT))
    return chain + [(STATUS + number, 1, True)], (at, body)


def blk_image(requests, order="<"):
    image = split_image([chain for chain, _ in requests], order)
    for _, (at, body) in requests:
        image.put(at, body)
    return image


def blk_seeds():
    def seed(name, requests, flags=0, features=ALL_RANGES, sectors=63, order="<", image=None):
        image = image or blk_image(requests, order)
        emit("blk", name, struct.pack("<BBH", sectors, flags, features & 0xffff) + part(b"") + bytes(image.bytes))

    seed("read-and-write", [request(0, OUT, 1, 1024), request(1, IN, 1, 1024), request(2, FLUSH), request(3, GET_ID, 0, 20)])
    seed("write-through", [request(0, OUT, 1, 1024)], flags=WRITE_THROUGH)
    seed("read-only", [request(0, OUT, 0, 512), request(1, IN, 0, 512)], flags=READ_ONLY)
    seed("big-endian", [request(0, IN, 2, 512, order=">")], flags=BIG_ENDIAN_DISK, order=">")
    seed("over-the-end", [request(0, IN, 63, 1024), request(1, IN, 1 << 62, 512), request(2, OUT, 64, 512)])
    seed("odd-length", [request(0, IN, 0, 511), request(1, OUT, 0, 1)])
    seed("ranges", [request(0, DISCARD, ranges=[(0, 8, 0)]), request(1, WRITE_ZEROES, ranges=[(8, 8, 1), (60, 4, 0)])])
    seed("bad-ranges", [request(0, DISCARD, ranges=[(0, 8, 1)]), request(1, WRITE_ZEROES, ranges=[(1 << 63, 1, 0)]),
                        request(2, DISCARD, ranges=[(0, 0xffffffff, 0)]), request(3, WRITE_ZEROES)])
    seed("many-ranges", [request(0, DISCARD, ranges=[(i, 1, 0) for i in range(9)])])
    seed("not-offered", [request(0, DISCARD, ranges=[(0, 8, 0)]), request(1, 99), request(2, 24)], features=0)
    header = Image()
    header.put(0, split_table([(DATA + i, 1, False) for i in range(12)] + [(DATA + 12, 4, False), (0x1800, 513, True)], 0))
    header.put(DRIVER, struct.pack("<HHH", 0, 1, 0))
    header.put(DATA, struct.pack("<IIQ", IN, 0, 3))
    seed("any-layout", [], image=header)
    short = Image()
    short.put(0, split_table([(DATA, 15, False), (STATUS, 1, True)], 0))
    short.put(DRIVER, struct.pack("<HHH", 0, 1, 0))
    seed("short-header", [], image=short)


# ---- messages (frames.cc, engine.cc, remote.cc: wire_script.h) --------------------------------------------------------

EVENTFD, MEMORY, PIPE_READ, PIPE_WRITE, FILE, SOCKET = 0, 3, 6, 7, 8, 12
NEED_REPLY, REPLY = 8, 4
FRONT_END_BASE = 0x7f00_0000_0000


def message(number, payload=b"", fds=(), flags=0):
    return bytes([1, number, flags | len(fds) << 4, *fds, len(payload)]) + payload


def raw(data, fds=()):
    return bytes([0, len(fds), *fds, len(data)]) + data


def u64(value):
    return struct.pack("<Q", value)


def state(ring, value):
    return struct.pack("<II", ring, value)


def addresses(ring, desc, used, avail, base=FRONT_END_BASE):
    return struct.pack("<IIQQQQ", ring, 0, base + desc, base + used, base + avail, 0)


def region(guest, size, user, offset=0):
    return struct.pack("<QQQQ", guest, size, user, offset)


PROTOCOL = 1 << 30
VERSION_1, IOMMU, PACKED, RING_INDIRECT, RING_EVENT = 1 << 32, 1 << 33, 1 << 34, 1 << 28, 1 << 29
MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET, INBAND, SLOTS, STATUS_BIT = (
    1 << bit for bit in (0, 3, 5, 9, 13, 14, 15, 16))


def handshake(features=VERSION_1 | PROTOCOL, protocol=MQ | REPLY_ACK | CONFIG | RESET | SLOTS):
    return message(1) + message(15) + message(16, u64(protocol)) + message(3) + message(17) + message(2, u64(features))


def memory_table():
    return message(5, struct.pack("<II", 1, 0) + region(0, 0x8000, FRONT_END_BASE), [MEMORY], NEED_REPLY)


def start_ring(ring, size=16, base=0, address_base=FRONT_END_BASE):
    return (message(8, state(ring, size)) + message(10, state(ring, base)) +
            message(9, addresses(ring, DESC, DEVICE, DRIVER, address_base)) + message(13, u64(ring), [EVENTFD]) +
            message(14, u64(ring), [EVENTFD]) + message(12, u64(ring), [EVENTFD]) +
            message(18, state(ring, 1), flags=NEED_REPLY))


STOP = message(11, state(0, 0))


def engine_seeds():
    requests = [request(0, OUT, 1, 1024), request(1, IN, 1, 1024), request(2, FLUSH), request(3, GET_ID, 0, 20)]

    def seed(name, script, image=None, flags=0, sizes=b""):
        content = bytes((image or blk_image(requests)).bytes)
        emit("engine", name, bytes([flags]) + struct.pack("<H", len(content)) + content + part(sizes) + script)

    seed("serve", handshake() + memory_table() + start_ring(0) + STOP)
    seed("serve-in-pieces", handshake() + memory_table() + start_ring(0) + STOP, sizes=bytes([1, 5, 0, 3]))
    seed("serve-twice", handshake() + memory_table() + (start_ring(0) + STOP) * 2)
    seed("read-only", handshake() + memory_table() + start_ring(0) + STOP, flags=1)
    seed("poll", handshake() + memory_table() + start_ring(0) + message(12, u64(0x100)) + STOP)
    seed("pipes", handshake() + memory_table() + start_ring(0) + message(12, u64(0), [PIPE_READ]) +
         message(13, u64(0), [PIPE_WRITE]) + STOP)
    seed("old-features", message(3) + message(1) + message(2, u64(0)) + memory_table() + start_ring(0) + STOP)
    seed("slots", handshake() + message(36) + message(37, u64(0) + region(0, 0x8000, FRONT_END_BASE), [MEMORY], NEED_REPLY) +
         start_ring(0) + message(38, u64(0) + region(0, 0x8000, FRONT_END_BASE), (), NEED_REPLY) + STOP)
    seed("memory-goes", handshake() + memory_table() + start_ring(0) + message(5, struct.pack("<II", 0, 0)) + STOP)
    packed = packed_image([chain for chain, _ in requests])
    for _, (at, body) in requests:
        packed.put(at, body)
    seed("packed", handshake(VERSION_1 | PROTOCOL | PACKED) + memory_table() + start_ring(0, base=0x80008000) + STOP, packed)
    iotlb = struct.pack("<QQQBB6x", 0, 0x8000, FRONT_END_BASE, 3, 2)
    invalidate = struct.pack("<QQQBB6x", 0, 0x8000, 0, 0, 3)
    seed("iommu", handshake(VERSION_1 | PROTOCOL | IOMMU, MQ | REPLY_ACK | BACKEND_REQ) + memory_table() +
         message(21, b"", [SOCKET]) + start_ring(0, address_base=0) + message(22, iotlb, (), NEED_REPLY) +
         message(22, invalidate, (), NEED_REPLY) + message(22, iotlb) + STOP)
    seed("status", handshake(protocol=MQ | REPLY_ACK | CONFIG | STATUS_BIT) + memory_table() + start_ring(0) +
         message(39, u64(15)) + message(40) + message(39, u64(0)) + STOP)
    seed("in-band", handshake(protocol=MQ | REPLY_ACK | BACKEND_REQ | INBAND) + memory_table() + message(21, b"", [SOCKET]) +
         start_ring(0) + message(12, u64(0x100)) + message(35, state(0, 0)) + STOP, flags=2)
    seed("reset", handshake() + memory_table() + start_ring(0) + message(34, b"", (), NEED_REPLY) + start_ring(1) + message(4))
    config = struct.pack("<III", 0, 60, 0) + bytes(60)
    seed("config", handshake() + message(24, config) + message(25, struct.pack("<IIIB", 32, 1, 0, 0), (), NEED_REPLY) +
         message(25, struct.pack("<IIIQ", 0, 8, 0, 1), (), NEED_REPLY))


def frame_seeds():
    def seed(name, script, kind=1, sizes=b""):
        emit("frames", name, bytes([kind]) + part(sizes) + script)

    everything = message(1) + message(15) + message(16, u64(0xffffff)) + message(2, u64((1 << 41) - 1))
    sizes = {5: 40, 6: 16, 9: 40, 22: 32, 24: 20, 25: 20, 26: 64, 31: 24, 32: 24, 37: 40, 38: 40, 41: 16}
    with_fd = {5, 6, 7, 12, 13, 14, 21, 32, 33, 37, 42}
    for number in range(1, 46):
        payload = bytearray(sizes.get(number, 8) if number not in (1, 3, 4, 7, 15, 17, 21, 28, 29, 30, 33, 34, 36, 40, 43, 44) else 0)
        if number == 5:
            payload[:] = struct.pack("<II", 1, 0) + region(0, 0x1000, 0)
        elif number in (24, 25):
            payload[:12] = struct.pack("<III", 0, 8, 0)
        elif number == 22:
            payload[:] = struct.pack("<QQQBB6x", 0, 0x1000, 0, 3, 2)
        elif number in (37, 38):
            payload[8:] = region(0, 0x1000, 0)
        elif number in (31, 32):
            payload[:] = struct.pack("<QQHH4x", 4096, 0, 1, 128)
        elif number == 8:
            payload[4] = 16
        fds = [SOCKET if number == 21 else FILE if number in (5, 6, 37) else EVENTFD] if number in with_fd else []
        seed(f"message-{number}", everything + message(number, bytes(payload), fds, NEED_REPLY))
    for number in range(1, 11):
        payload = bytes({1: 32, 2: 0, 3: 24, 4: 8, 5: 8, 6: 16, 7: 16, 8: 16, 9: 40, 10: 40}[number])
        if number == 1:
            payload = struct.pack("<QQQBB6x", 0, 0, 0, 1, 1)
        seed(f"back-end-message-{number}", message(number, payload, [EVENTFD] if number in (3, 9) else [], NEED_REPLY), kind=0)
    header = struct.pack("<III", 2, 1, 8) + u64(1 << 30)
    seed("in-single-bytes", b"".join(raw(bytes([byte])) for byte in header), sizes=b"\1")
    seed("late-fd", raw(header[:12]) + raw(header[12:], [EVENTFD]))
    seed("endless", raw(struct.pack("<III", 2, 1, 0xffffffff)))
    seed("many-fds", raw(header, [EVENTFD] * 14))
    seed("cut-short", raw(header[:15]))
    seed("wrong-version", raw(struct.pack("<III", 1, 2, 0)))


def remote_seeds():
    def seed(name, requests, replies, sizes=b""):
        emit("remote", name, part(requests) + part(sizes) + replies)

    hello = message(1, u64(PROTOCOL | VERSION_1), (), REPLY) + message(15, u64(0xffffff), (), REPLY)
    ack = message(16, u64(0), (), REPLY) + message(2, u64(0), (), REPLY)
    setup = bytes([0, 0, 2, 0, 3, 0]) + u64(0xffffff) + bytes([1, 0]) + u64(PROTOCOL | VERSION_1)
    seed("hello", setup, hello + ack)
    seed("stop-a-ring", setup + bytes([4, 1]), hello + ack + message(11, state(1, 9), (), REPLY))
    seed("queues", setup + bytes([5, 0]), hello + ack + message(17, u64(1 << 63), (), REPLY))
    seed("config", setup + bytes([6, 0, 0, 8]), hello + ack + message(24, struct.pack("<III", 0, 8, 0) + u64(7), (), REPLY))
    seed("config-too-long", setup + bytes([6, 0, 0, 8]), hello + ack + message(24, struct.pack("<III", 0, 9, 0) + bytes(9), (), REPLY))
    seed("inflight", setup + bytes([7, 0]), hello + ack + message(31, struct.pack("<QQHH4x", 4096, 0, 2, 128), [FILE], REPLY))
    seed("surplus-fds", setup + bytes([5, 0]), hello + ack + message(17, u64(2), [EVENTFD] * 9, REPLY))
    seed("wrong-reply", setup + bytes([5, 0, 8, 0]), hello + ack + message(1, u64(2), (), REPLY))
    seed("no-reply-flag", setup + bytes([5, 0]), hello + ack + message(17, u64(2)))
    seed("pieces", setup + bytes([5, 0]), hello + ack + message(17, u64(2), (), REPLY), sizes=bytes([1, 2, 3]))


def main():
    split_seeds()
    packed_seeds()
    driver_seeds()
    blk_seeds()
    net_seeds()
    engine_seeds()
    frame_seeds()
    remote_seeds()


if __name__ == "__main__":
    main()
