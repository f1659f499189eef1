"""Every folder here is a method."""
