"""MLflow's enforcement is the oracle: what we accept, refuse and cast otherwise is a table, and every row of it is true."""

from __future__ import annotations

import pytest

pytest.importorskip("mlflow")  # of the full environment, as pandas is

from differential import DIFFERENCES, Difference, ours, run, same, theirs


def test_generated_pairs_differ_only_as_documented() -> None:
    seen = run(2500, repeatable=True)  # `python -m tests.differential` runs 20,000 others
    assert seen["both accept"] > 0.15 * seen.total()
    assert seen["both refuse"] > 0.15 * seen.total()


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_a_documented_difference_is_one(difference: Difference) -> None:
    we, they = ours(difference.example), theirs(difference.example)
    assert difference.reason
    assert difference.covers(difference.example, we, they), f"{we}\n{they}"
    assert (we.values is None) != (they.values is None) or not same(difference.example, we.values or {}, they.values or {})
