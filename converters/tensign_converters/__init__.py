"""Converters: an MLmodel directory -> an MLmodel directory with graph, preprocessing and proof, that MLflow opens too.

Run as `python -m tensign_converters SRC DST`, always in a process of its own. On the way: convert asks learner
(what the model does), package writes it by graph (as ONNX) and parity (the proof).
"""

__all__ = ["convert"]
