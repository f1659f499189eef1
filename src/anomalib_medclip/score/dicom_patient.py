"""Whose a DICOM series is: words of its headers, in whatever letters, such as DICOM allows them."""

from collections.abc import MutableSequence, Sequence
from typing import Any

from anomalib_medclip.readers.dicom_header import value_of
from anomalib_medclip.score import dicom_normal as normal

_PATIENT_AND_STUDY: dict[str, normal.Normal] = {
    "PatientName": normal.person_name,
    "PatientID": normal.identifier(64),
    "PatientBirthDate": normal.day,
    "PatientSex": normal.sex,
    "StudyDate": normal.day,
    "StudyTime": normal.clock,
    "StudyID": normal.identifier(16),
    "AccessionNumber": normal.identifier(16),
}
"""Type 2 of the modules Patient and General Study, all of which may be empty; the referring
physician always is."""

_UTF_8 = "ISO_IR 192"


def who_of(files: Sequence[Any], notes: list[str]) -> Any:  # noqa: ANN401 - pydicom's
    """Patient and study, of the first file that says each such as it may be said."""
    found, empty, faulty, differing, guessed = {}, [], [], [], []
    for name, usable in _PATIENT_AND_STUDY.items():
        stated = [text for text in (text_of(one, name) for one in files) if text]
        values = [value for value in map(usable, stated) if value]
        found[name] = values[0] if values else ""
        if not stated:
            empty.append(name)
        elif set(stated) != set(values):
            faulty.append(name if values else f"{name} (left empty)")
        if len(set(values)) > 1:
            differing.append(name)
        if not (found[name].isascii() or terms_of(files[0])):
            guessed.append(name)
    told = {
        "empty, since the files do not state it": empty,
        "made such as DICOM allows": faulty,
        "of the first file, since the files differ": differing,
        "of a character set that is not stated, taken for UTF-8, else for Latin-1": guessed,
    }
    notes += [f"{', '.join(names)}: {words}" for words, names in told.items() if names]
    return dataset_of(**found, ReferringPhysicianName="")


def nobody() -> dict[str, str]:
    """A patient and a study of whom nothing is said: highdicom may log what it copies."""
    return dict.fromkeys(_PATIENT_AND_STUDY, "")


def charset_of(text: str, terms: list[str]) -> list[str]:
    """Character sets that a text can be written in: these, or UTF-8; none is needed for ASCII."""
    if text.isascii():
        return []
    return terms if terms and _says(terms, text) else [_UTF_8]


def terms_of(header: Any) -> list[str]:  # noqa: ANN401 - pydicom's
    """The character sets that a header states; none if DICOM does not know one of them."""
    from pydicom.charset import python_encoding

    said = value_of(header, "SpecificCharacterSet")
    terms = list(said) if isinstance(said, MutableSequence) else [said or ""]
    known = all(isinstance(one, str) and one in python_encoding for one in terms)
    return [str(one) for one in terms] if known and any(terms) else []


def _says(terms: list[str], text: str) -> bool:
    from pydicom.charset import convert_encodings, decode_bytes, encode_string

    encodings = convert_encodings(terms)
    if len(encodings) == 1:
        try:
            return bool(text.encode(encodings[0]))
        except UnicodeEncodeError:
            return False
    return bool(decode_bytes(encode_string(text, encodings), encodings, set()) == text)


def text_of(header: Any, name: str) -> str:  # noqa: ANN401 - pydicom's
    """What a header says, of whatever type; nothing where it says what is no text.

    Bytes that pydicom has not looked at yet are not shown to it: it would warn of faulty ones by
    their value.
    """
    from pydicom.charset import convert_encodings, decode_bytes

    try:
        value = getattr(header.get_item(name), "value", None)
    except Exception:  # pydicom looks at empty ones after all, and may not know their type
        return ""
    terms = terms_of(header) if hasattr(header, "file_meta") else []
    if isinstance(value, bytes):
        if terms:
            value = decode_bytes(value, convert_encodings(terms), set(b"\\^="))
        else:
            value = value.decode("latin-1")
    elif isinstance(value, MutableSequence):
        value = "\\".join(map(str, value)) if all(map(_is_plain, value)) else ""
    text = str(value).strip("\0 ") if _is_plain(value) else ""
    return text if terms else _guessed(text)


def _is_plain(value: object) -> bool:
    from pydicom.valuerep import PersonName

    return isinstance(value, str | int | float | PersonName)  # and no items of a sequence


def _guessed(text: str) -> str:
    """Text of a header that states no character set, and was read as Latin-1.

    Letters in UTF-8 make sense in it by no accident.
    """
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def dataset_of(**values: Any) -> Any:  # noqa: ANN401 - pydicom's
    """A data set with these values, by keyword."""
    from pydicom.dataset import Dataset

    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found
