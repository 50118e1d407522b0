"""The data-only reader: pickles and torch archives as records, and networks rebuilt from them; no code of a file runs."""
