"""Picture files written byte by byte, as their formats are defined, from the numbers wanted."""

import struct
import zlib

import numpy as np


def bits_of(rows, bits):
    """Numbers ``(row, number)`` as packed bits, each row padded to a byte."""
    whole = rows.astype(np.uint64)
    single = (whole[..., None] >> np.arange(bits, dtype=np.uint64)[::-1]) & np.uint64(1)
    return np.packbits(single.reshape(len(rows), -1).astype(np.uint8), axis=1)


# --- TIFF

SHORT, LONG, LONG8 = 3, 4, 16
SIZES = {SHORT: "H", LONG: "I", LONG8: "Q"}


def samples(pixels, bits, order):
    """Bytes of the numbers of each row, ``(row, byte)``."""
    rows = pixels.reshape(len(pixels), -1)
    if bits in (8, 16, 32, 64):
        plain = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(order)))
        return plain.view(np.uint8).reshape(len(rows), -1)
    return bits_of(rows, bits)


def tiff_page(pixels, bits, photometric, order, **how):
    """Strips and tags of one page; ``pixels`` are ``(row, column, channel)``."""
    height, width, channels = pixels.shape
    apart, step = how.get("apart", False), how.get("rows", 3)
    planes = [pixels[..., [c]] for c in range(channels)] if apart else [pixels]
    strips = []
    for plane in planes:
        for start in range(0, height, step):
            part = plane[start : start + step]
            if how.get("predictor"):
                part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1)
            raw = samples(part, bits, order).tobytes()
            strips.append(zlib.compress(raw) if how.get("packed") else raw)
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {
        256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [bits] * channels),
        259: (SHORT, [8 if how.get("packed") else 1]), 262: (SHORT, [photometric]),
        274: (SHORT, [how.get("orientation", 1)]), 277: (SHORT, [channels]),
        278: (LONG, [step]), 284: (SHORT, [2 if apart else 1]), 339: (SHORT, [kind] * channels),
        **how.get("tags", {}),
    }  # fmt: skip
    if how.get("predictor"):
        tags[317] = SHORT, [2]
    if how.get("extra") is not None:
        tags[338] = SHORT, [how["extra"]]
    return strips, tags


def write_tiff(path, *pages, order="<", big=False):
    """Write pages of ``tiff_page``, classic or BigTIFF."""
    wide, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    out = bytearray(
        (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    )
    if big:
        out += struct.pack(order + "HH", 8, 0)
    link = len(out)
    out += bytes(struct.calcsize(wide))
    for strips, tags in pages:
        places = []
        for strip in strips:
            places.append(len(out))
            out += strip
        tags = {**tags, 273: (LONG, places), 279: (LONG, [len(one) for one in strips])}
        values = {}
        for tag, (kind, numbers) in sorted(tags.items()):
            raw = struct.pack(f"{order}{len(numbers)}{SIZES[kind]}", *numbers)
            if len(raw) > struct.calcsize(wide):
                raw, at = struct.pack(order + wide, len(out)), raw
                out += at
            values[tag] = struct.pack(order + "HH" + wide, tag, kind, len(numbers)) + raw.ljust(
                struct.calcsize(wide), b"\0"
            )
        struct.pack_into(order + wide, out, link, len(out))
        out += struct.pack(order + count, len(values)) + b"".join(values.values())
        assert all(len(one) == entry for one in values.values())
        link = len(out)
        out += bytes(struct.calcsize(wide))
    path.write_bytes(out)
    return path


# --- BMP


def bmp_rows(numbers, bits):
    """Rows of numbers, padded to four bytes."""
    if bits < 8:
        rows = bits_of(numbers, bits)
    else:
        rows = np.ascontiguousarray(numbers.astype("<u4")).view(np.uint8)
        rows = rows.reshape(*numbers.shape, 4)[..., : bits // 8].reshape(len(numbers), -1)
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))


def bmp_runs(rows, bits):
    """The same as runs of one number, and as numbers one by one where a row begins with two."""
    out = b""
    for row in rows.tolist():
        at = 0
        while at < len(row):
            alone = row[at : at + 5]
            if at == 0 and len(set(alone)) == 5:  # three at least, padded to two bytes
                packed = bytes(alone) if bits == 8 else bits_of(np.array([alone]), 4).tobytes()
                out += bytes([0, 5]) + packed + bytes(len(packed) % 2)
                at += 5
                continue
            count = 1
            while at + count < len(row) and row[at + count] == row[at] and count < 255:
                count += 1
            out += bytes([count, row[at] if bits == 8 else row[at] * 17])
            at += count
        out += b"\0\0"
    return out + b"\0\1"


def write_bmp(path, numbers, bits, palette=None, fields=None, **how):
    """Write numbers ``(row, column)`` of so many bits.

    ``palette`` is of blue, green, red; ``how`` may hold ``os2``, ``from_top``, ``runs``, ``gap``.
    """
    height, width = numbers.shape
    rows = numbers if how.get("from_top") else numbers[::-1]
    pixels = bmp_runs(rows, bits) if how.get("runs") else bmp_rows(rows, bits).tobytes()
    masks = struct.pack(f"<{len(fields)}I", *fields) if fields else b""
    table = b"" if palette is None else b"".join(
        bytes(one) + (b"" if how.get("os2") else b"\0") for one in palette.tolist()
    )  # fmt: skip
    compression = 3 if fields else {8: 1, 4: 2}[bits] if how.get("runs") else 0
    if how.get("os2"):
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        tall = -height if how.get("from_top") else height
        used = 0 if palette is None else len(palette)
        header = struct.pack(
            "<IiiHHIIiiII", 40, width, tall, 1, bits, compression, len(pixels), 0, 0, used, 0
        )
    rest = masks + table + bytes(how.get("gap", 0))
    start = 14 + len(header) + len(rest)
    path.write_bytes(
        b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + rest + pixels
    )
    return path


# --- PNG

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = [
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
    (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
]  # fmt: skip
"""First row and column of the passes of an interlaced picture, and their steps."""


def write_png(path, numbers, kind, bits, *chunks, interlaced=False):
    """Write numbers ``(row, column, channel)`` as a colour type of so many bits."""
    height, width = numbers.shape[:2]
    numbers = numbers.astype(np.uint16 if bits == 16 else np.uint8)
    passes = [numbers]
    if interlaced:
        passes = [numbers[row::down, column::right] for row, column, down, right in ADAM7]
    rows = [row for part in passes if part.size for row in samples(part, bits, ">")]
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks)
        + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    )  # fmt: skip
    return path
