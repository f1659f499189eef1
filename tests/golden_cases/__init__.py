"""Golden cases, method by method."""
