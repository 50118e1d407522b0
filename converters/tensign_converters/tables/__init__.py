"""Models of tables: an estimator of scikit-learn, columns in, as an ONNX graph that answers the same and refuses the same."""
