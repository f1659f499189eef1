"""A method under Lightning and anomalib: what it learns, when, and what it leaves on disk."""
