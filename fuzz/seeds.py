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


def use(which, how=1):
    return bytes([USE, which, how])


SERVE_ALL = bytes([DISABLE, POP_MANY]) + use(0) + use(1) + use(0, 3) + bytes([PUBLISH, ENABLE, POP, PUSH_BACK, POP]) + \
    use(0, 2) + bytes([SET_VIEW, POP_MANY]) + use(0, 8) * 3 + bytes([PUBLISH, ENABLE])


def ring(size_code, image, format=0, memory=0, base=0, operations=SERVE_ALL, changes=b"", iotlb=None):
    header = struct.pack("<BBBBIHHHH", size_code, format, memory | (IOTLB if iotlb is not None else 0), 0, base,
                         DESC // 16, DRIVER // 4, DEVICE // 4, 0)
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


def main():
    split_seeds()
    packed_seeds()


if __name__ == "__main__":
    main()
