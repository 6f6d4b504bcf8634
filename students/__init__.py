"""The radiance-field students."""
