"""A teacher written to disk: renders, depth, features, fewer Gaussians."""
