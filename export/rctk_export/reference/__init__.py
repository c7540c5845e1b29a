"""An interpreter of ONNX classifier graphs in NumPy; :mod:`rctk_export.engines.reference` states its arithmetic."""
