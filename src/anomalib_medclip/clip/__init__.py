"""CLIP as open_clip has it: which one, its weights, its frozen towers."""
