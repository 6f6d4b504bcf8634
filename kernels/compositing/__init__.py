"""What a ray shows of its samples, front to back."""
