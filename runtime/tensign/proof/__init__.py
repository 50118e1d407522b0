"""The proof that a converted model predicts as its original did: what is tried, the difference, the record, the picture of it.

Needs neither torch nor the original: the original's answers are kept beside the model, so that `tensign verify` can hold it
against them on any machine.
"""
