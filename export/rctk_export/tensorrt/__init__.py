"""TensorRT 10.3 to 11.x from one code base: build a plan, judge whether it is valid here, run it, read what it became.

Names that a version lacks are reached through :func:`~rctk_export.tensorrt.api.optional`, never by a version string.
"""
