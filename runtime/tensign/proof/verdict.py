"""What a proof comes to, in words: the same or not, and what its figures alone would not tell a reader."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tensign.proof.record import CALIBRATED, Proof

_FEW = 20  # pictures, to calibrate on and to be judged on
_FASTER = 1.05  # less is within what two measurements differ by
_COUNTED = {"classification": "best class", "segmentation": "best class of a pixel", "multilabel": "labels"}


def verdict(proof: Proof, activation: str, task: str) -> str:
    """One line; activation, task: as in a plan."""
    judged, most = proof.held or proof.parity, proof.tolerance
    if activation == "none":
        far = f"greatest difference {judged.relative_difference:.1e} of the row's largest value, {most.relative:g} allowed"
    else:
        far = f"greatest difference {judged.max_difference:.1e} of {most.difference:g} allowed"
    shares = [(_COUNTED.get(task, "best class"), judged.top1_agreement), ("labels and whole numbers", judged.equal_values)]
    equal = [f"{what} equal on {100 * share:.4g} %" for what, share in shares if share is not None]
    same = "The same" if most.holds(judged, activation) else "Not the same"
    counted = f", {' and '.join(equal)} of" if equal else ", on"
    return f"{same}: {far}{counted} {judged.rows} row{'s' * (judged.rows != 1)}"


def remarks(precision: str, proof: Proof, calibrated: str) -> Iterator[str]:
    """Of a variant; calibrated: on what, in words."""
    if precision in CALIBRATED and proof.held:
        count = _pictures(calibrated) + _pictures(proof.held.inputs)
        if 0 < count < _FEW:
            yield f"of {count} picture{'s' * (count != 1)}, too few to tell much"
    if precision != "fp32" and 0 < proof.speed < _FASTER:
        yield "no faster than fp32 here"


def _pictures(told: str) -> int:
    found = re.match(r"(\d{1,9}) pictures?\b", told)
    return int(found[1]) if found else 0
