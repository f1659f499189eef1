"""Files to numbers: pictures, NIfTI, DICOM, and where the numbers lie in [0, 1]."""
