"""Rate against quality: students as compact files beside their teacher's own forms, at sizes from small to large."""
