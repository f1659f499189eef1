"""Valid files as other programs write them: read to the number, or refused for a reason."""

import re

import numpy as np
import pytest
from odd import WINDOW
from odd_dicom import DICOM_PICTURES, DICOM_VOLUMES
from odd_masks import MASKS, REFUSED_MASKS, VOLUME_MASKS
from odd_pictures import PICTURES
from odd_tables import LABELS, LAYOUTS, NAMES, REFUSED_TABLES, TABLES, save
from odd_volumes import VOLUMES

from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.errors import MedclipError
from anomalib_medclip.readers.picture import read_image, read_lesion
from anomalib_medclip.readers.volume import read_labels, read_volume

REFUSED_PICTURES = {
    "tiff of pages": r"3 pages of 10 x 7; store each that counts",
    "tiff of complex numbers": r"64 bits of a kind \(6\).*; convert it to grey or RGB",
    "inks jpeg": r"inks \(CMYK\), whose colours depend on a printer; convert it to RGB",
    "inks tiff": "SEPARATED; convert it to grey or RGB",
    "lab tiff": "CIELAB; convert it to grey or RGB",
    "gif animation": "3 pictures, one after another.*; store the one that counts",
    "png animation": "3 pictures, one after another.*; store the one that counts",
    "netpbm": "PPM, which is not read; convert it to PNG",
    "jpeg 2000": "JPEG2000, which is not read; convert it to PNG",
    "dicom of a report": "Basic Text SR Storage file and no image; take it out",
    "dicom of a mosaic": "is a mosaic.*; make a NIfTI file of it by `dcm2niix ",
    "dicom of a cine": "3 frames .* that says nothing of each.*; take it apart into .* by `python ",
    "dicom lossless jpeg": "JPEG Lossless.*; run pip install .* or unpack it by `gdcmconv ",
}
REFUSED_VOLUMES = {
    "nifti of three volumes": "holds 3 volumes; take one out, the first by python -c ",
    "nifti in metres": "lengths in metres; .* make millimetres of them .* by python -c ",
    "nifti of colours": "colours .* at each voxel; give the grey volume",
    "nifti of a line": "a line, of which no picture is made; take it out",
    "itk of three volumes": "holds 3 volumes; export one of them",
    "mha packed whole": "packed by gzip as a whole; unpack it by `gunzip < ",
    "zip": "is a zip archive; unpack it",
    "hdf5": "is an HDF5 file.*; load it by its program or by Python",
    "Heidelberg": "Heidelberg Engineering.*; open it by the Python package eyepy",
    "multi-frame of two echoes": "2 volumes, which differ in EffectiveEchoTime.*--dicom-where",
    "series without a slice": "6.000 mm apart, other slices .*; complete the series, or allow",
    "series that leans": "tilted by 11.3 degrees.*; straighten them by `dcm2niix ",
    "series of two": "2 DICOM series.*; give each series a folder, or choose one",
}
"""Why, and what helps; all others are read."""


def as_picture(path):
    return np.asarray(read_image(path, WINDOW)).transpose(1, 2, 0)


def as_volume(path):
    return read_volume(path, WINDOW).voxels


def as_labels(path):
    return read_labels(path).voxels != 0


CORPUS = [
    ({**PICTURES, **DICOM_PICTURES}, as_picture, REFUSED_PICTURES),
    ({**VOLUMES, **DICOM_VOLUMES}, as_volume, REFUSED_VOLUMES),
    (MASKS, read_lesion, REFUSED_MASKS),
    (VOLUME_MASKS, as_labels, {}),
]
IDS = ("pictures", "volumes", "masks", "masks of volumes")


def assert_refused(read, path, words):
    """By an error of ours, which names the file and, behind a semicolon, what helps."""
    with pytest.raises(MedclipError) as refusal:
        read(path)
    said = str(refusal.value)
    assert str(path) in said
    assert re.search(words, said.replace(str(path), "")), said


@pytest.mark.parametrize(("files", "read", "refused"), CORPUS, ids=IDS)
@pytest.mark.filterwarnings("ignore")  # pydicom's, of what is wrong on purpose
def test_a_valid_file_is_read_right_or_refused_with_a_remedy(tmp_path, files, read, refused):
    assert refused.keys() <= files.keys()
    for name, write in files.items():
        path, expected = write(tmp_path / name / name)
        if name in refused:
            assert_refused(read, path, refused[name])
            continue
        found = read(path)
        if expected.ndim == 2 and found.ndim == 3:
            expected = np.repeat(expected[..., None], 3, axis=2)
        assert found.shape == expected.shape, name
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_the_images_that_it_was_written_for(tmp_path, name):
    for number, image in enumerate(NAMES):
        save(tmp_path / image, number)
    table = TABLES[name](tmp_path / "table")

    def listed(path):
        return MedicalFolder(tmp_path, path).list_images()

    if name in REFUSED_TABLES:
        assert_refused(listed, table, REFUSED_TABLES[name])
        return
    found = listed(table)
    assert found["image_path"].tolist() == [str(tmp_path / image) for image in NAMES]
    assert tuple(found["label_index"]) == LABELS


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_holds_the_images_that_were_put_there(tmp_path, name):
    images, left_out, options = LAYOUTS[name](tmp_path / "set")
    data = MedicalFolder(tmp_path / "set", **options)
    table = data.list_images()
    assert dict(zip(table["image_path"], table["label_index"], strict=True)) == {
        str(path): label for path, label in images.items()
    }
    named = {str(path): why for path, why in left_out.items()}
    said = {str(one[0]): one[1] for one in data.left_out}
    assert said.keys() == named.keys()
    assert all(re.search(named[path], why) for path, why in said.items())


def test_the_corpus_is_large_and_nearly_all_of_it_is_read():
    count = sum(len(files) for files, _, _ in CORPUS) + len(TABLES) + len(LAYOUTS)
    refused = sum(len(names) for _, _, names in CORPUS) + len(REFUSED_TABLES)
    assert count > 350
    assert refused < 0.1 * count
