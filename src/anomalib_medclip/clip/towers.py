"""CLIP's two frozen towers: images to tokens at several levels, sentences to features."""

from anomalib_medclip.clip.image_tower import ImageTower
from anomalib_medclip.clip.text_tower import TextTower

__all__ = ["ImageTower", "TextTower"]
