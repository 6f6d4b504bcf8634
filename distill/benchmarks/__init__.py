"""Times the kernels and whole runs, every implementation beside the others."""
