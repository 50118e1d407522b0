"""Variants of a converted model beside fp32: half precision, and 8-bit integers calibrated on pictures."""
