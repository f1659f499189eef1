"""What IQE-CLIP says of every image, before its class tokens."""

SENTENCES = ("a photo of a normal <|class|>.", "a photo of a abnormal <|class|>.")
"""As the authors', letter by letter; ``<|class|>`` is no word of CLIP's and stays as it is."""
