"""An MLmodel of scikit-learn -> Original: the estimator, and what it answers, as the served original does."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from tensign.choice import chosen
from tensign.coltypes import BOOLEAN, DOUBLE, FLOAT, INTEGER, LONG, STRING
from tensign.engines.modelinput import model_input
from tensign.engines.sklearn import SklearnEngine
from tensign.errors import UnsupportedModel, UntrustedModel
from tensign.mlmodel import ModelManifest
from tensign.proof.parity import LOGITS, Answers
from tensign.signature import Arrays, Signature
from tensign.specs import ColumnSpec, described

_TAKEN = (BOOLEAN, INTEGER, LONG, FLOAT, DOUBLE, STRING)
_METHODS = ("predict", "predict_proba")

Table = dict[str, npt.NDArray[Any]]  # {input: [n,...]}


@dataclass(frozen=True, slots=True)
class Original:
    """engine: that of the served original, loaded; notes: what its libraries warned of."""

    engine: SklearnEngine
    signature: Signature
    versions: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def estimator(self) -> Any:
        return self.engine.estimator

    @property
    def gives_probabilities(self) -> bool:
        """Whether there are any besides what it predicts, and the graph has a name for them."""
        apart = self.engine.method == "predict" and callable(getattr(self.estimator, "predict_proba", None))
        return apart and LOGITS not in names(self.signature)

    def answers(self, table: Arrays) -> Table:
        """{output: [n,...]}, checked against the signature. Raises whatever the model raises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.engine.run(table)
        return self.signature.enforce_outputs(found, len(next(iter(table.values()))))

    def answered(self, table: Arrays) -> Answers:
        """The same, its probabilities as logits besides."""
        return Answers(self.answers(table), self.probabilities(table) if self.gives_probabilities else None)

    def probabilities(self, table: Arrays) -> npt.NDArray[np.float64]:
        """[n,classes], in the order of its classes_."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = model_input(table, list(map(described, self.signature.inputs)), single_as_dict=False)
            return np.asarray(self.estimator.predict_proba(given), np.float64)


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """On few rows OpenMP's threads wait for each other longer than they work."""
    with threadpool_limits(1, user_api="openmp"):
        yield


def read_original(manifest: ModelManifest, *, trust: bool) -> Original:
    """Loads it: skops without `trust` where skops itself knows every type, a pickle only with it, for that runs its code.

    Raises UntrustedModel, UnsupportedModel.
    """
    import sklearn

    signature = Signature.parse(manifest.signature)
    _check(signature)
    choice = chosen(manifest, "sklearn")
    flavor = manifest.flavors["sklearn"]
    engine = SklearnEngine(
        path=str(manifest.path.resolve()),
        file=str(choice.file),
        flavor=dict(flavor),
        pyfunc=dict(manifest.flavors.get("python_function", {})),
        trust=trust,
        inputs=list(map(described, signature.inputs)),
        outputs=list(map(described, signature.outputs)),
    )
    if engine.method not in _METHODS:
        raise UnsupportedModel(f"predict_fn {engine.method[:64]!a}: wanted {' or '.join(_METHODS)}, which have a graph")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            engine.load()
        except UntrustedModel as error:
            told = str(error).partition(". If you trust")[0]
            raise UntrustedModel(
                f"{told}: reading it runs the model's own code. If you trust where it comes from, say so: --trust loads it in a"
                " confined process of its own"
            ) from None
    written = str(flavor.get("sklearn_version", "an unknown version"))[:40]
    notes = dict.fromkeys(" ".join(str(one.message).split())[:200] for one in warned)
    return Original(engine, signature, {"scikit-learn": sklearn.__version__, "written_by_scikit-learn": written}, tuple(notes))


def names(signature: Signature) -> set[str]:
    """Of its inputs and outputs."""
    return {spec.name for spec in (*signature.inputs, *signature.outputs)}


def _check(signature: Signature) -> None:
    """Raises UnsupportedModel for one that no graph can have."""
    if signature.params or not signature.outputs:
        raise UnsupportedModel(f"wanted a signature with outputs and without params, got {signature}")
    if both := {spec.name for spec in signature.inputs} & {spec.name for spec in signature.outputs}:
        raise UnsupportedModel(f'"{min(both)}" is the name of an input and of an output; ONNX wants two')
    for spec in signature.inputs:
        if isinstance(spec, ColumnSpec):
            if spec.type not in _TAKEN:
                raise UnsupportedModel(f'input "{spec.name}": {spec}; wanted {", ".join(map(str, _TAKEN))}')
        elif len(spec.shape) != 2 or spec.shape[1] == -1 or spec.dtype.kind not in "biuf" or len(signature.inputs) > 1:
            raise UnsupportedModel(f'input "{spec.name}": {spec}; wanted columns, or one tensor of numbers [-1,n]')
    for spec in signature.outputs:
        if len(spec.shape) > 2 or spec.shape[0] != -1:
            raise UnsupportedModel(f'output "{spec.name}": {spec}; wanted a column, or a tensor [-1] or [-1,n]')
