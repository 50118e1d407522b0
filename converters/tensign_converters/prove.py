"""The proof: the converted model and the original on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tensign.engines.onnx import session_options, text
from tensign.errors import ParityFailed, UnsupportedModel
from tensign.proof.parity import LOGITS, NETWORK_INPUT, Answers, Differences, Parity, Tolerance
from tensign.proof.record import CALIBRATED, Proof, allowed, gathered, proof, thinned
from tensign.proof.samples import Sample, Samples
from tensign_converters.subject import Subject

BATCHES = (1, 3, 8)  # rows at a time, in turn
_ALONE = 24  # rows that are asked by themselves too
_BESIDE = Tolerance(1e-3, 1e-3)  # what other rows in the batch may change: kernels of other sizes round otherwise
FULL = "fp32"


def tolerance(subject: Subject, name: str) -> Tolerance:
    """Beyond which that precision is refused."""
    return subject.tolerance if name == FULL else allowed(name, subject.head.task)


def prove(subject: Subject, model: Path, rows: Samples) -> tuple[Proof, dict[str, npt.NDArray[Any]]]:
    """The proof of the ONNX file `model`, and the original's answers, thinned, by output.

    Raises ParityFailed beyond the tolerance.
    """
    proofs, answers = prove_all(subject, {FULL: model}, rows)
    return proofs[FULL], answers


def prove_all(
    subject: Subject, files: Mapping[str, Path], rows: Samples, held: Samples | None = None
) -> tuple[dict[str, Proof], dict[str, npt.NDArray[Any]]]:
    """The same of several precisions of one model, {"fp32": file, ...}; the original is asked once.

    held: what the others than fp32 are judged on too, and what is calibrated on nothing else, whatever it makes of `rows`.
    """
    found, answers = _differences(subject, files, rows)
    others = {name: file for name, file in files.items() if name != FULL}
    own = _differences(subject, others, held)[0] if held and others else {}
    names, proofs = [rows.name(row) for row in range(len(rows))], {}
    for name, file in files.items():
        parity, most = found[name].parity(rows.told, BATCHES), tolerance(subject, name)
        judged = own[name].parity(held.told, BATCHES) if held and name in own else None
        bound = [judged or parity, *[parity] * (name not in CALIBRATED)]
        if not (all(most.holds(each, subject.head.activation) for each in bound) and _sound(parity)):
            which = "the converted model" if name == FULL else f"its {name} variant"
            told = f"{judged}; beside them: {parity}" if judged else str(parity)
            raise ParityFailed(
                f"{which} does not predict as the original: {told}; allowed is {most}; held against {subject.against}"
            )
        proofs[name] = proof(file, most, parity, found[name].greatest, names, judged)
    return proofs, answers


def _sound(parity: Parity) -> bool:
    """What holds of any rows, whatever a model was made for."""
    finite = np.isfinite([parity.max_difference, parity.relative_difference]).all()
    return bool(finite) and parity.equal_values in (None, 1.0)


def _differences(
    subject: Subject, files: Mapping[str, Path], rows: Samples
) -> tuple[dict[str, Differences], dict[str, npt.NDArray[Any]]]:
    head = subject.head
    converted = {name: Converted(file, subject) for name, file in files.items()}
    differences = {name: Differences(head.task, head.threshold) for name in files}
    kept: dict[str, list[npt.NDArray[Any]]] = {}
    alone = 0
    for chunk in rows.chunks(BATCHES):
        original = subject.answers(chunk)
        for name, one in converted.items():
            answers = one.answers(chunk, list(original.outputs))
            differences[name].add(answers, original)
            if name == FULL and len(chunk) > 1 and alone < _ALONE:
                alone += len(chunk)
                _check_rows(one, chunk, answers)
        for name, output in original.outputs.items():
            kept.setdefault(name, []).append(thinned(output))
    return differences, {name: gathered(chunks) for name, chunks in kept.items()}


def _check_rows(converted: Converted, chunk: Sequence[Sample], answers: Answers) -> None:
    """Raises ParityFailed where a row's answer depends on the rows beside it, which may be anybody's in a shared batch."""
    differences = Differences("")
    for row, sample in enumerate(chunk):
        beside = Answers({name: output[row : row + 1] for name, output in answers.outputs.items()})
        differences.add(Answers(converted.answers([sample], list(answers.outputs)).outputs), beside)
    if not _BESIDE.holds(found := differences.parity("each by itself", (1, len(chunk))), "none"):
        raise ParityFailed(
            f"a row's answer depends on the rows beside it, by {found.max_difference:.1e}, so rows cannot share a batch: the"
            " network takes a mean over the batch, or was saved in training mode"
        )


class Converted:
    """A written graph behind the host's steps, its inner tensors as outputs too. Needs ONNX Runtime: UnsupportedModel."""

    def __init__(self, model: Path, subject: Subject) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UnsupportedModel("proving the conversion needs onnxruntime: pip install 'tensign[cpu,convert]'") from None
        self._preprocess = subject.preprocess
        graph, self._inner = with_inner_outputs(model)
        self._session = onnxruntime.InferenceSession(graph, session_options(), providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._columns = subject.signature.columnar
        self._outer = [each.name for each in self._session.get_outputs() if each.name not in self._inner]

    def answers(self, chunk: Sequence[Sample], names: Sequence[str]) -> Answers:
        """names: what the signature calls the outputs, and the graph too where there are several."""
        feeds = self.feeds(chunk)
        asked = [*(self._outer[:1] if len(names) == 1 else names), *self._inner]
        given = self._session.run(asked, feeds)
        inner = dict(zip(self._inner, given[len(names) :], strict=True))
        return Answers(dict(zip(names, given, strict=False)), inner.get(LOGITS), inner.get(NETWORK_INPUT))

    def feeds(self, chunk: Sequence[Sample]) -> dict[str, npt.NDArray[Any]]:
        """Rows as the graph takes them."""
        feeds = {name: self._column([sample[name] for sample in chunk]) for name in chunk[0]}
        return dict(zip(self._inputs, feeds.values(), strict=True)) if len(feeds) == 1 else feeds

    def _column(self, values: list[Any]) -> npt.NDArray[Any]:
        if self._preprocess is None:
            column = np.stack([np.asarray(value) for value in values])
            column = column[:, None] if self._columns else column  # networks made from columns want each as [n,1]
            return text(column) if column.dtype.kind in "OU" else column
        if isinstance(values[0], Path):
            return self._preprocess.encoded([file.read_bytes() for file in values], height=-1, width=-1)
        return self._preprocess.arrays(np.stack(values))


def with_inner_outputs(file: Path) -> tuple[bytes, list[str]]:
    """The serialized model with its logits and the network's input, where they are inner tensors, as outputs again: which."""
    model = onnx.load(file)
    outputs = {value.name for value in model.graph.output}
    inner = [value for value in model.graph.value_info if value.name in (LOGITS, NETWORK_INPUT) and value.name not in outputs]
    model.graph.output.extend(inner)
    return model.SerializeToString(), [value.name for value in inner]
