"""Converters: an MLmodel directory -> an MLmodel directory with graph, preprocessing and proof, that MLflow opens too.

Run as `python -m tensign_converters SRC DST`, always in a process of its own. On the way: convert < learner (what the
model does) < graph (as ONNX) < parity (the proof) < package (the directory).
"""
