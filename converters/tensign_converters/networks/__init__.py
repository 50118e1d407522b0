"""PyTorch files of every kind as networks: pickled, exported, scripted, or bare weights."""
