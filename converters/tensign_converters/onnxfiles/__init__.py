"""Existing ONNX files with declared pictures, folded into one graph."""
