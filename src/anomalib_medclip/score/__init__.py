"""Trained models on whole volumes: maps on the grid of the file, scores, pictures, DICOM."""
