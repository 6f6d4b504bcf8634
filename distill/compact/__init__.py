"""A student as a small file: its weights as integers, coded without those that nothing can reach."""
