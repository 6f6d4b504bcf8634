"""From dataset files to cameras, and from cameras to rays."""
