"""Files to numbers: pictures, NIfTI, DICOM, and where the numbers lie in [0, 1].

================  ======================================================
``picture``       one picture file, or a mask, to a tensor
``picture_file``  one picture file, decoded to the numbers it holds
``tiff``          the same of TIFF
``bmp``           the same of BMP
``stored``        what such a file holds
``lesion``        what the numbers of a mask mean
``resize``        the one resize of images and masks
``graph_resize``  the same for graphs of exported models
``digits``        whole numbers larger than these graphs compute in
``intensity``     numbers of any depth to [0, 1]
``size_limit``    how large a picture or volume may be
``volume``        voxels, and where they lie in the patient
``nifti``         NIfTI files, read strictly
``dicom``         DICOM files: one picture, or a series
``dicom_file``    one DICOM file, header or whole
``dicom_pixels``  the pixels of one DICOM file
``dicom_order``   which slices of a series make a volume, in which order
================  ======================================================
"""
