"""Long runs that account for every row and every byte: `make soak`; short forms are in tests/test_soak.py."""
