"""Serves engines over the Open Inference Protocol v2: NumPy, one runtime and a small ASGI server."""
