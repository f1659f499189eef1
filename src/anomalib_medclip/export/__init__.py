"""anomalib's exports, each with a certificate that it is the same model."""
