"""The built-in scene: a handful of bricks as 3D Gaussians."""
