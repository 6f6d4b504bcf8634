"""The teacher's Gaussians: rasterised, seen along rays, and as a volume."""
