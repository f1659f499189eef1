"""Files to numbers: pictures, volumes, DICOM, and where the numbers lie in [0, 1].

=================  ======================================================
``picture``        one picture file, or a mask, to a tensor
``picture_file``   one picture file, decoded to the numbers it holds
``tiff``           the same of TIFF
``bmp``            the same of BMP
``stored``         what such a file holds
``lesion``         what the numbers of a mask mean
``resize``         the one resize of images and masks
``graph_resize``   the same for graphs of exported models
``digits``         whole numbers larger than these graphs compute in
``intensity``      numbers of any depth to [0, 1]
``size_limit``     how large a picture or volume may be
``volume``         voxels, and where they lie in the patient
``volume_file``    one file with a volume, of any format that is read
``nifti``          NIfTI and Analyze files, read strictly
``mgh``            MGH files of FreeSurfer
``nrrd``           NRRD files
``meta_image``     MetaImage files
``text_header``    headers and voxels of these two
``grid``           what shapes and affines can be
``flat``           NIfTI files that are one voxel thick, which are pictures
``file_kind``      what a file is, by its content
``unpacked``       the bytes of a file, unpacked
``dicom``          DICOM files: one picture, or a series
``dicom_file``     one DICOM file, header or whole
``dicom_header``   whether a DICOM file is a picture, and what its pixels are
``dicom_frames``   the pictures of a DICOM file, one or many
``dicom_pixels``   the pixels of DICOM files
``dicom_values``   what headers say of an attribute, to choose by
``dicom_volumes``  which volumes the slices of a series make
``dicom_order``    in which order the slices of a volume lie, and where
``listing``        which files below folders are images, which are masks
``masks_among``    which of some files are masks, by name or by what they show
``mask_names``     what names say: that a picture is a mask, and of which
``left_out``       files that are not taken
``tool_commands``  command lines that errors name
=================  ======================================================
"""
