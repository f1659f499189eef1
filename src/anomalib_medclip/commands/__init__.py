"""The commands of ``anomalib-medclip``, a module each."""
