"""Ways to damage a file that respect its format: a field is changed, and checksums fit again."""

import gzip
import io
import pickle
import struct
import zipfile
import zlib

from fuzz.damage import BYTES, EXTREMES, FLOATS, TEXT, change_json, change_tree, flip, pick

# --- PNG, JPEG, BMP, TIFF

_PNG = b"\x89PNG\r\n\x1a\n"


def _chunks(content):
    at = len(_PNG)
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        yield name, content[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _bomb(random):
    return zlib.compress(bytes(int(10 ** random.uniform(4, 8))))


def _ihdr(data, random):
    fields = list(struct.unpack(">IIBBBBB", data))
    index = int(random.integers(len(fields)))
    top = 2**32 if index < 2 else 256
    fields[index] = pick(random, (*EXTREMES, 3, 4, 6, 8, 16)) % top
    return struct.pack(">IIBBBBB", *fields)


def png_chunk(content, random, others):
    """Change, add, move or take out a chunk; all checksums are right."""
    chunks = list(_chunks(content))
    if not chunks:
        return flip(content, random, others)
    at, what = int(random.integers(len(chunks))), int(random.integers(6))
    name, data = chunks[at]
    if what == 0 and len(chunks[0][1]) == 13:
        chunks[0] = chunks[0][0], _ihdr(chunks[0][1], random)
    elif what == 1:
        text = pick(
            random, (b"iCCP", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"tRNS", b"PLTE", b"eXIf")
        )
        head = {b"iCCP": b"x\0\0", b"zTXt": b"x\0\0", b"iTXt": b"x\0\1\0\0\0"}.get(text)
        chunks.insert(at, (text, head + _bomb(random) if head else random.bytes(9)))
    elif what == 2:
        chunks.insert(int(random.integers(len(chunks) + 1)), chunks.pop(at))
    elif what == 3:
        chunks[at : at + 1] = [chunks[at]] * int(random.integers(3))
    elif what == 4 and name == b"IDAT":
        chunks[at] = name, pick(random, (_bomb(random), zlib.compress(random.bytes(50))))
    else:
        chunks[at] = name, pick(random, BYTES)(data, random, [data])
    return _PNG + b"".join(_chunk(*one) for one in chunks)


def jpeg_segment(content, random, others):
    """An extreme number in the head of a JPEG segment: its length, size, sampling or tables."""
    marks = [i for i in range(len(content) - 4) if content[i] == 0xFF and content[i + 1] >= 0xC0]
    if not marks:
        return flip(content, random, others)
    made, at = bytearray(content), pick(random, marks) + 2 + int(random.integers(12))
    made[at : at + 2] = (pick(random, EXTREMES) % 2**16).to_bytes(2, "big")
    return bytes(made)


def bmp_field(content, random, others):
    """An extreme number in the header of a BMP."""
    made, at = bytearray(content), pick(random, (2, 10, 14, 18, 22, 26, 28, 30, 34, 46, 50))
    size = 2 if at in (26, 28) else 4
    made[at : at + size] = (pick(random, EXTREMES) % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(made)


def tiff_tag(content, random, others):
    """Change name, type, count or value of an entry of the first directory."""
    order = "<" if content[:2] == b"II" else ">"
    if len(content) < 8:
        return flip(content, random, others)
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    if start + 2 > len(content):
        return flip(content, random, others)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    at = start + 2 + 12 * int(random.integers(max(1, min(count, 60))))
    field, size = pick(random, ((0, 2), (2, 2), (4, 4), (8, 4), (8, 2)))
    made = bytearray(content)
    number = pick(random, (*EXTREMES, 3, 4, 5, 7, 8, 11, 256, 257, 258, 259, 277, 32773, 50000))
    order = {"<": "little", ">": "big"}[order]
    made[at + field : at + field + size] = (number % 2 ** (8 * size)).to_bytes(size, order)
    return bytes(made)


# --- NIfTI


def nifti_field(content, random, others):
    """Another value in a field of the header."""
    import nibabel as nib

    kind = nib.Nifti2Header if content[:4] == b"\x1c\2\0\0" else nib.Nifti1Header
    size = kind.template_dtype.itemsize
    if len(content) < size:
        return flip(content, random, others)
    header = bytearray(content[:size])
    name = pick(random, kind.template_dtype.names)
    dtype, start = kind.template_dtype.fields[name][:2]
    base = dtype.base
    at = start + base.itemsize * int(random.integers(max(1, dtype.itemsize // base.itemsize)))
    if base.kind == "f":
        number = struct.pack(f"<{base.char}", pick(random, _floats(base.itemsize)))
    elif base.kind in "iu":
        number = (
            pick(random, (*EXTREMES, 3, 4, 8, 16, 64, 512)) % 2 ** (8 * base.itemsize)
        ).to_bytes(base.itemsize, "little")
    else:
        number = random.bytes(base.itemsize)
    header[at : at + base.itemsize] = number
    return bytes(header) + content[size:]


def _floats(size):
    return [x for x in FLOATS if size == 8 or not 3.4e38 < abs(x) < float("inf")]


def in_gzip(damage):
    """Damage what is in a gzip file; its checksum fits again."""

    def inside(content, random, others):
        try:
            plain = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return flip(content, random, others)
        return gzip.compress(damage(plain, random, [plain]), compresslevel=1, mtime=0)

    return inside


def gzip_bomb(content, random, others):
    """Zeros behind what is in a gzip file, or another file behind it."""
    zeros = gzip.compress(bytes(int(10 ** random.uniform(3, 8))), compresslevel=1, mtime=0)
    return pick(random, (content + zeros, zeros, content + content, content + random.bytes(20)))


# --- DICOM

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
_VRS = (*_LONG, b"AE", b"CS", b"DS", b"IS", b"US", b"SS", b"UL", b"FD", b"LO", b"UI", b"AT", b"xx")
_DS = (b"0", b"-1", b"1e300", b"nan", b"inf", b"1\\2", b"", b" ", b"x", b"1.5", b"70000", b"\0",
       b"-1e-300", b"1\\2\\3", b"9" * 400, b"\xe4", b"1.2.840.10008.1.2", b"1" * 65)  # fmt: skip


def _elements(content):
    """Elements of explicit VR in little endian, each as tag, VR and value, and what follows."""
    at, found = 132, []
    while at + 8 <= len(content):
        tag, vr = content[at : at + 4], content[at + 4 : at + 6]
        if vr in _LONG:
            if at + 12 > len(content):
                break
            start, (length,) = at + 12, struct.unpack_from("<I", content, at + 8)
        else:
            start, (length,) = at + 8, struct.unpack_from("<H", content, at + 6)
        if length == 2**32 - 1 or start + length > len(content):
            break
        found.append((tag, vr, content[start : start + length]))
        at = start + length
    return found, content[at:]


def _element(tag, vr, value, said=None):
    length = len(value) if said is None else said
    if vr in _LONG:
        return tag + vr + b"\0\0" + struct.pack("<I", length % 2**32) + value
    return tag + vr + struct.pack("<H", length % 2**16) + value


def dicom_element(content, random, others):
    """Change value, VR, tag, length or place of an element, or add one of another file."""
    found, rest = _elements(content)
    if not found:
        return flip(content, random, others)
    at, what, said = int(random.integers(len(found))), int(random.integers(8)), None
    tag, vr, value = found[at]
    if what == 0:
        vr = pick(random, _VRS)
    elif what == 1:
        said = pick(random, EXTREMES)
    elif what == 2:
        tag = pick(random, (tag[:2] + random.bytes(2), pick(random, found)[0]))
    elif what == 3:
        other = pick(random, _elements(pick(random, others))[0] or found)
        found[at : at + 1] = pick(random, ([], [other]))
        return content[:132] + b"".join(_element(*one) for one in found) + rest
    else:
        value = _other_value(vr, value, random)
    made = [_element(*one) for one in found]
    made[at] = _element(tag, vr, value, said)
    return content[:132] + b"".join(made) + rest


def _other_value(vr, value, random):
    """What else may stand in an element of this VR."""
    if vr in (b"US", b"SS", b"UL", b"AT"):
        number = pick(random, (*EXTREMES, 3, 7, 8, 12, 16)) % 2 ** (8 * len(value))
        return number.to_bytes(len(value), "little")
    return pick(random, BYTES)(value, random, [value]) if vr in _LONG else pick(random, _DS)


def in_deflated(damage):
    """Damage what is in a deflated DICOM file, or make it inflate to very much."""

    def inside(content, random, others):
        found, _ = _elements(content)
        meta = sum(len(_element(*one)) for one in found if one[0][:2] == b"\2\0") + 132
        try:
            plain = zlib.decompress(content[meta:], -zlib.MAX_WBITS)
        except zlib.error:
            return flip(content, random, others)
        head = content[:132]
        made = damage(head + plain, random, [head + plain])[132:]
        if random.random() < 0.1:
            made += bytes(int(10 ** random.uniform(3, 8)))
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return content[:meta] + packer.compress(made) + packer.flush()

    return inside


# --- archives: numpy's, torch's


def in_zip(*damages, names=""):
    """Damage members of an archive whose names end so; checksums fit again."""

    def inside(content, random, others):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [(name, archive.read(name)) for name in archive.namelist()]
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError):
            return flip(content, random, others)
        own = [i for i, (name, _) in enumerate(members) if name.endswith(names)]
        at, what = pick(random, own or range(len(members))), int(random.integers(10))
        name, data = members[at]
        if what == 0:
            members.pop(at)
        elif what == 1:
            members.append((pick(random, (name, "../out", "/out", "x\0y", "data.pkl")), data))
        elif what == 2:
            other = int(random.integers(len(members)))
            members[at], members[other] = (name, members[other][1]), (members[other][0], data)
        else:
            members[at] = name, pick(random, damages)(data, random, [data])
        return _zipped(members, pick(random, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))

    return inside


def _zipped(members, how):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "_")), data, how)
    return made.getvalue()


def npy_header(content, random, others):
    """Another shape, type or order in the header of an array, or a length that is none."""
    start = content.find(b"{")
    end = content.find(b"\n", start)
    if start < 0 or end < 0:
        return flip(content, random, others)
    kinds = (
        "'|O'",
        "'<f8'",
        "'<U100000000'",
        "'|V0'",
        "'>c16'",
        "'<M8[s]'",
        "'xx'",
        "[('a', '<i4')]",
    )
    shapes = ("()", "(0,)", "(-1,)", "(10000000000,)", "(2, 2)", "None", "(1.5,)", "(" * 500)
    text = pick(random, (
        f"{{'descr': {pick(random, kinds)}, 'fortran_order': False, 'shape': (3,), }}",
        f"{{'descr': '<f4', 'fortran_order': True, 'shape': {pick(random, shapes)}, }}",
        "{}", "[]", "__import__('os')", "{'descr': '<f4'}", "'" * 3,
    )).encode()  # fmt: skip
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text) + 1) + text + content[end:]


def pickle_words(content, random, others):
    """Other globals, numbers or sizes in a pickle, or another pickle in its place."""
    what = int(random.integers(4))
    if what == 0:
        names = (b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nload\n", b"cnumpy\nzeros\n",
                 b"ctorch.storage\n_load_from_bytes\n", b"c__builtin__\ngetattr\n")  # fmt: skip
        at = content.find(b"c", int(random.integers(max(1, len(content) - 1))))
        end = content.find(b"\n", content.find(b"\n", at) + 1) + 1
        return content[:at] + pick(random, names) + content[end:]
    if what == 1:
        at = content.find(b"K", int(random.integers(max(1, len(content) - 1))))
        number = pick(random, EXTREMES) % 2**31
        return content[:at] + b"J" + struct.pack("<i", number) + content[at + 2 :]
    if what == 2:
        value = change_tree({"state_dict": {"a": [1, {"b": None}]}, "hyper_parameters": {}}, random)
        return pickle.dumps(value, pick(random, (0, 1, 2, 4, 5)))
    depth = int(10 ** random.uniform(1, 5))
    return b"\x80\2" + b"]" * depth + b"a" * (depth - 1) + b"."


def safetensors_header(content, random, others):
    """Another header of tensors: places, shapes, types, or its own length."""
    (length,) = struct.unpack("<Q", content[:8].ljust(8, b"\0"))
    header, numbers = content[8 : 8 + length], content[8 + length :]
    damage = pick(random, (change_json, change_json, *TEXT))
    made = damage(header, random, [header])
    said = pick(random, (len(made),) * 8 + EXTREMES)
    return struct.pack("<Q", said % 2**64) + made + numbers
