"""fastai Learners, live or exported: network, transforms and loss, taken apart."""
