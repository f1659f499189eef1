"""Files to numbers: pictures, volumes, DICOM, and where the numbers lie in [0, 1].

================  ======================================================
``picture``       one picture file, or a mask, to a tensor
``resize``        the one resize of images and masks
``graph_resize``  the same for graphs of exported models
``intensity``     numbers of any depth to [0, 1]
``size_limit``    how large a picture or volume may be
``volume``        voxels, and where they lie in the patient
``volume_file``   one file with a volume, of any format that is read
``nifti``         NIfTI and Analyze files, read strictly
``mgh``           MGH files of FreeSurfer
``nrrd``          NRRD files
``meta_image``    MetaImage files
``text_header``   headers and voxels of these two
``grid``          what shapes and affines can be
``file_kind``     what a file is, by its content
``unpacked``      the bytes of a file, unpacked
``dicom``         DICOM files: one picture, or a series
``dicom_file``    one DICOM file, header or whole
``dicom_pixels``  the pixels of one DICOM file
``dicom_order``   which slices of a series make a volume, in which order
================  ======================================================
"""
