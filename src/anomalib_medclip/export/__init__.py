"""anomalib's exports, each with a certificate that it is the same model.

======================  ================================================================
``verbs``               anomalib's names for exports
``exporter``            written aside, compared, moved into place
``bundle``              a folder that MONAI's tools run
``aside``               where a model and its files are meanwhile
``certificate``         how far a file is from the trained model
``description``         what a reader of the file must know
``metadata``            the description, written into the file
``program``             a model as a program of torch.export
``parity``              whether an exported model is the trained one, in figures
``pictures``            real images to compare on
``runtimes``            exported files as functions: torch, ONNX Runtime, OpenVINO
``compression``         which part of an export becomes integers, and within which bound
``openvino_precision``  which part of an OpenVINO file may be computed in bf16
======================  ================================================================
"""
