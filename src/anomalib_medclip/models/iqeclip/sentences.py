"""What IQE-CLIP says of every image, before its class tokens."""

from anomalib_medclip.components.words import Words

WORDS = Words(("normal {}",), ("abnormal {}",), ("a photo of a {}.",))
"""As the authors', letter by letter."""

OBJECT = "<|class|>"
"""No word of CLIP's; it stays as it is."""
