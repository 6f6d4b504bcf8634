"""A run from start to end, and what the command lines share."""
