"""Integer arithmetic of rctk: NumPy reference code that defines the truth, and the errors all three roots share."""
