"""Whether a student shows what its teacher's pictures show, and if not, which mistake explains it."""
