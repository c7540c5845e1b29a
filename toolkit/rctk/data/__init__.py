"""Data sets by name or path, as splits of images in [0, 1]."""
