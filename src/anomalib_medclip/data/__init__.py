"""An image file becomes a batch: what a data config may name."""
