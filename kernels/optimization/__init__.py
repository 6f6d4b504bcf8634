"""Steps of training: Adam, and what is done to weights besides."""
