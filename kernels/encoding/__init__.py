"""What networks read of a place and a direction: the hash grid and spherical harmonics."""
