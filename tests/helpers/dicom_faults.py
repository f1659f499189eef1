"""Headers as archives have them: elements changed byte by byte, which pydicom would not write."""

import struct

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword

_LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OF", b"OD"}
"""Types whose length is stated in four bytes, behind two empty ones."""

SAID = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyInstanceUID",
    "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID", "SeriesNumber",
    "Modality", "SliceThickness", "SpacingBetweenSlices", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod", "SpecificCharacterSet",
)  # fmt: skip
"""What results of a series may say of its headers, or might be tempted to."""

FAULTS = (
    None, b"", b"\0", b" ", b"x" * 70, b"x" * 60_000, b"A\\B", b"M\xfcller^J\xf6rg",
    "Müller^Jörg".encode(), b"\x1b$B;3\x1b(B", b"male", b"1950-??", b"1950.01.31", b"19500231",
    b"12:30:45", b"25", b"1.2.03", b"1." * 40, b"a.b", b"-1", b"1e400", b"nan", b"01",
    b"ISO_IR 100", b"ISO_IR 192", b"ISO_IR 999", b"\\ISO 2022 IR 87", b"\1\2", b"a^b^c^d^e^f^g",
    b"a=b=c=d", b"<&>\"'", b"2147483648", b"1\\2\\3", b"0",
)  # fmt: skip
"""``None`` takes an element out."""

TYPES = ("PN", "LO", "SH", "DA", "TM", "CS", "UI", "DS", "IS", "UN", "OB", "LT", "US", "FD")


def set_raw(path, keyword, value, vr=None):
    """Write an element of a file in explicit little endian; ``None`` takes it out.

    Lengths are made even by a space, and multiples of what a number takes.
    """
    content = path.read_bytes()
    start = 144 + struct.unpack("<I", content[140:144])[0]
    elements = dict(_elements(content, start))
    number = tag_for_keyword(keyword)
    kind = (vr or dictionary_VR(number)).encode()
    tag = struct.pack("<HH", number >> 16, number & 0xFFFF)
    elements.pop(number, None)
    if value is not None:
        size = {b"US": 2, b"FD": 8}.get(kind, 2)
        value = value + b" " * (-len(value) % size)
        head = struct.pack("<2xI" if kind in _LONG else "<H", len(value))
        elements[number] = tag + kind + head + value
    path.write_bytes(content[:start] + b"".join(elements[one] for one in sorted(elements)))


def _elements(content, at):
    while at < len(content):
        group, element, kind = struct.unpack("<HH2s", content[at : at + 6])
        if kind in _LONG:
            length, begin = struct.unpack("<I", content[at + 8 : at + 12])[0], at + 12
        else:
            length, begin = struct.unpack("<H", content[at + 6 : at + 8])[0], at + 8
        yield group << 16 | element, content[at : begin + length]
        at = begin + length


def break_headers(paths, seed):
    """Do a few wrong things to the headers of a series; which, in words."""
    draw = np.random.default_rng(seed)
    done = []
    for _ in range(draw.integers(1, 6)):
        keyword, value = SAID[draw.integers(len(SAID))], FAULTS[draw.integers(len(FAULTS))]
        vr = TYPES[draw.integers(len(TYPES))] if draw.random() < 0.4 else None
        some = paths if draw.random() < 0.7 else paths[:1]
        for path in some:
            set_raw(path, keyword, value, vr)
        done.append(f"{keyword} as {vr} {value[:20] if value else value!r} in {len(some)}")
    return done
