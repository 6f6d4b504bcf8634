"""What a teacher knows inside: channels of its Gaussians, in a volume or along rays."""
