"""Command lines that errors name, to be copied from between backquotes; the tests run each."""

import shlex
from pathlib import Path
from typing import Any

_NUMPY = "nibabel as n,numpy as p"


def copied(*words: object) -> str:
    """A command line between backquotes, whatever blanks and quotes are in its words.

    Example:
        >>> copied("dcm2niix", "-o", ".", "head CT")
        "`dcm2niix -o . 'head CT'`"
    """
    return f"`{shlex.join(map(str, words))}`"


def python_command(code: str, *paths: Path, imports: str = _NUMPY) -> str:
    """A command line that does something with files in Python.

    Every machine with this package can run it. It has no "; ", at which messages are split.

    Args:
        code: What it does; ``{0}`` and so on are the files.
        *paths: The files.
        imports: What it needs.
    """
    names = ('"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"' for path in paths)
    return shlex.join(["python", "-c", f"import {imports};" + code.format(*names)])


def by_dcm2niix(header: Any, *words: object) -> str:  # noqa: ANN401 - a pydicom dataset
    """A call of dcm2niix that makes NIfTI in the folder where it is called.

    Of a file whose numbers it would misread, with that said: it takes no account of the highest
    bit, of a sign in fewer bits than are there, and of white being the least number.

    Args:
        header: Of a file that it is to read.
        *words: Its options and what to convert.
    """
    command = copied("dcm2niix", *words)
    bits, signed = header.BitsStored, header.PixelRepresentation
    moved = header.HighBit != bits - 1 or (signed and bits not in (16, 32))
    if not moved and header.PhotometricInterpretation != "MONOCHROME1":
        return command
    kind = f"{bits} bits{' with a sign' * signed} below bit {header.HighBit + 1}"
    said = f"{header.PhotometricInterpretation} of {kind}"
    return (
        f"{command} of a copy that was exported as MONOCHROME2 of 16 bits, since dcm2niix misreads "
        f"numbers like these, {said}"
    )


def frames_apart(path: Path) -> str:
    """A command that makes a DICOM file of each frame, with its numbers as they are.

    They are called like the file, and lie in the folder where it is given.
    """
    code = (
        "a=d.dcmread({0});a.file_meta.TransferSyntaxUID.is_encapsulated and a.decompress();"
        "p=a.PixelData;m=int(a.NumberOfFrames);s=len(p)//m;a.NumberOfFrames=1;"
        '[(setattr(a,"PixelData",p[i*s:i*s+s]),a.save_as({1}+"_%04d.dcm"%i)) for i in range(m)]'
    )
    return f"`{python_command(code, path, Path(path.stem), imports='pydicom as d')}`"
