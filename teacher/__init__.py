"""The 3D Gaussian Splatting teacher: its file format, its image formation, and its outputs on disk."""
