"""A small network, calibrated, converted and proved; `make architectures` does eleven."""

from __future__ import annotations

import pytest

pytest.importorskip("fastai")

from architectures import measure


def test_logits_of_a_calibrated_network_survive() -> None:
    measured = measure("xresnet18")
    assert measured.difference <= 1e-4
    assert measured.proved.top1_agreement is not None and measured.proved.top1_agreement >= 0.999
    assert measured.proved.rows >= 30 and measured.proved.batches == (1, 3, 8)
    assert measured.proved.spread > 0.5  # the pictures differ to it
