"""A proof as one HTML page: the figures, a histogram of the differences, the rows that differ most. Needs matplotlib."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from tensign.config import MAX_PIXELS
from tensign.decode import decode
from tensign.errors import InvalidConfig, UnsupportedModel
from tensign.plan import ModelPlan
from tensign.proof.parity import Parity, Tolerance
from tensign.proof.record import CALIBRATED, RECORD_FILE, TOLERANCES, Proof, Record
from tensign.proof.verdict import remarks, verdict
from tensign.proof.verification import tried

FILE = "conversion.html"
_THUMBNAIL = 160  # pixels
_SMALLEST = 1e-9  # a difference below counts as this one, on a logarithmic axis
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}"
    "figure{display:inline-block;margin:.5rem;text-align:center;font-size:12px}svg{max-width:100%;height:auto}"
)


def check() -> None:
    """Raises InvalidConfig, before anything is run, where no page could be made."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InvalidConfig("report: needs matplotlib: pip install 'tensign[plot]'") from None


def page(directory: Path, record: Record, again: Parity | None = None, name: str = "") -> str:
    """The page of a converted model. again: what came of verifying it; name: of the model, where not its own.

    Raises InvalidConfig without matplotlib.
    """
    check()
    plan = ModelPlan.of(directory)
    name = escape(name or plan.manifest.name)
    proofs = {precision: record.proofs[precision] for precision in TOLERANCES if precision in record.proofs}
    parts = [f"<h1>{name}: converted, and the same?</h1>", *_verdicts(plan, record, proofs)]
    parts += [_facts(plan, record), _figures(plan, proofs, again)]
    for precision, proof in proofs.items():
        parts += [
            f"<h2>{escape(precision)}: how far each of {escape(str(proof.parity.rows))} rows differs</h2>",
            _histogram(proof),
        ]
        parts += ["<h2>The rows that differ most</h2>", *_worst(plan, record, proof)]
    head = f'<meta charset="utf-8"><title>{name}: proof</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{"".join(parts)}\n</body></html>\n'


def _verdicts(plan: ModelPlan, record: Record, proofs: Mapping[str, Proof]) -> Iterator[str]:
    for precision, proof in proofs.items():
        noted = remarks(precision, proof, str(record.source.get("calibrated", "")))
        told = "; ".join([verdict(proof, plan.activation, plan.task), *noted])
        yield f"<p><b>{escape(told if len(proofs) == 1 else f'{precision}: {told}')}</b></p>"


def _facts(plan: ModelPlan, record: Record) -> str:
    source = {key: value for key, value in record.source.items() if key != "versions"}
    versions = ", ".join(f"{key} {value}" for key, value in record.source.get("versions", {}).items())
    facts: dict[str, Any] = {"signature": plan.signature}
    if plan.preprocess:
        facts["preprocessing"] = "; ".join(map(str, (*plan.preprocess.steps, *plan.preprocess.graph))) or "none"
    if plan.labels:
        facts["labels"] = f"{len(plan.labels)}: {', '.join(plan.labels[:8])}{', ...' if len(plan.labels) > 8 else ''}"
    facts |= {"held against": record.against, **source, "versions": versions, "not checked": "; ".join(record.unchecked)}
    return _table([(key, str(value)) for key, value in facts.items()])


def _figures(plan: ModelPlan, proofs: Mapping[str, Proof], again: Parity | None) -> str:
    columns: dict[str, Mapping[str, str]] = {}
    for precision, proof in proofs.items():
        most: Tolerance | None = proof.tolerance
        told = f"{precision} ({_size((plan.manifest.path / proof.file).stat().st_size)}{_speed(proof)})"
        if proof.held:
            columns[f"{told}, judged on rows like those to come"] = _told(proof.held, plan.activation, most)
            told = f"{precision} on {'rows that it is not judged by' if precision in CALIBRATED else 'other rows'}"
            most = None if precision in CALIBRATED else most
        columns[told] = _told(proof.parity, plan.activation, most)
    if again:
        columns["verified just now"] = _told(again, plan.activation, None)
    rows = [("", *columns)]
    rows += [(label, *(column[label] for column in columns.values())) for label in next(iter(columns.values()))]
    return _table(rows)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _speed(proof: Proof) -> str:
    return f", {proof.speed:.1f} times the rows/s of fp32 on one thread" if proof.speed else ""


def _told(parity: Parity, activation: str, most: Tolerance | None) -> dict[str, str]:
    """most: what these figures were judged by, None where they were not."""
    given, agreement = parity.network_input_difference, parity.top1_agreement
    difference = f" ({most.difference:g} allowed)" if most and activation != "none" else ""
    relative = f" ({most.relative:g} allowed)" if most else ""
    least = f" (from {most.agreement:.0%} on)" if most and most.agreement else ""
    return {
        "rows": f"{parity.rows}: {parity.inputs}",
        "rows at a time, in turn": ", ".join(map(str, parity.batches)),
        "greatest difference of an output": f"{parity.max_difference:.1e}{difference}",
        "mean difference of an output": f"{parity.mean_difference:.1e}",
        "greatest difference of a logit, to the row's largest": f"{parity.relative_difference:.1e}{relative}",
        "greatest difference of what the network is given": "not known" if given is None else f"{given:.1e}",
        "top-1 agreement": "no classes" if agreement is None else f"{agreement:.2%}{least}",
        "spread of the logits: how far answers to different rows lie apart; next to 0, the rest proves nothing": (
            f"{parity.spread:.3g}"
        ),
    }


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = (f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>" for row in rows)
    return f"<table>{''.join(lines)}</table>"


def _histogram(proof: Proof) -> str:
    with _without_font_news():
        from matplotlib import rc_context
        from matplotlib.figure import Figure

    values = np.maximum(np.array(proof.differences), _SMALLEST)
    edges = np.logspace(np.log10(_SMALLEST), 0, 37)
    drawn = io.StringIO()
    with rc_context({"svg.hashsalt": "tensign", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.hist(np.minimum(values, 1), bins=edges.tolist(), color="#1f6fb4")
        axes.axvline(
            max(proof.tolerance.difference, _SMALLEST), color="#c0392b", linestyle="--", label="tolerance of a probability"
        )
        axes.set(xscale="log", xlabel="greatest difference of the row's outputs", ylabel="rows")
        axes.legend(frameon=False)
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


@contextmanager
def _without_font_news() -> Iterator[None]:
    """Where matplotlib has seen no font yet, it says that it has looked for them."""
    log = logging.getLogger("matplotlib.font_manager")

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("generated new fontManager")

    log.addFilter(other)
    try:
        yield
    finally:
        log.removeFilter(other)


def _worst(plan: ModelPlan, record: Record, proof: Proof) -> Iterator[str]:
    rows = tried(plan, record.crops)
    numbers = {rows.name(row): row for row in range(len(rows))}
    if len(rows) != len(proof.differences) or not numbers.keys() >= set(proof.worst):
        raise UnsupportedModel(
            f"{plan.manifest.path / RECORD_FILE}: differences and worst: not of the {len(rows)} rows that are tried"
        )
    for name in proof.worst:
        difference = proof.differences[numbers[name]]
        thumbnail = next((_thumbnail(value) for value in rows[numbers[name]].values()), "")
        yield f"<figure>{thumbnail}<figcaption>{escape(name)}<br>{difference:.1e}</figcaption></figure>"


def _thumbnail(value: Any) -> str:
    """A picture as an inline PNG, nothing for what is none."""
    if isinstance(value, Path):
        image = decode(value.read_bytes(), max_pixels=MAX_PIXELS)
    elif isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim >= 2:
        image = PIL.Image.fromarray(value.squeeze()).convert("RGB")
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == 3:
        channels_last = np.moveaxis(value, 0, -1) if value.shape[0] in (1, 3) else value
        if channels_last.shape[-1] not in (1, 3):
            return ""
        low, high = float(value.min()), float(value.max())
        scaled = (channels_last - low) * (255 / max(high - low, 1e-9))
        image = PIL.Image.fromarray(scaled.astype(np.uint8).squeeze()).convert("RGB")
    else:
        return ""
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    written = io.BytesIO()
    image.save(written, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"><br>'
