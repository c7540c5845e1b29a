"""Quantization-aware training on the ONNX graph: one file per quantizer, and the net that trains with them."""
