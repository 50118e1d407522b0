"""conversion.json and proof.npz: what a conversion was held against, how far it was off, and the original's answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.conversion import MOST_CROPS
from tensign.errors import UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.proof.answers import read_answers, write_answers
from tensign.proof.field import Field, read_json
from tensign.proof.parity import FULL_PRECISION, Parity, Tolerance

RECORD_FILE, ANSWERS_FILE = "conversion.json", "proof.npz"
_VERSION = 2
_MOST_VALUES = 1 << 12  # of a row of an output that are kept
_MOST_ROWS = 1 << 20
_MOST_BYTES = 1 << 26  # of conversion.json; the default has some ten thousand
_BEST_KNOWN = 8

# What a proof of each precision is refused beyond, by task, "" for every other. Of 8 bits, where something is decided: how
# often the decision stays; a row of labels agrees only with all of them. Where numbers are the answer: a tenth of the largest.
TOLERANCES: Mapping[str, Mapping[str, Tolerance]] = {
    "fp32": {"": FULL_PRECISION},
    "fp16": {"": Tolerance(5e-3, 1e-2)},
    "int8": {
        "": Tolerance(0.1, 0.1),
        "classification": Tolerance(1.0, 1.0, 0.97),
        "segmentation": Tolerance(1.0, 1.0, 0.97),
        "multilabel": Tolerance(1.0, 1.0, 0.95),
    },
}

CALIBRATED = ("int8",)  # on rows like those to come, and judged on such alone where some were held back

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Proof:
    """One file, held against the original.

    differences: the greatest of each row; worst: the names of the rows that differ most, the worst first; bytes: of the file;
    speed: rows/s to those of fp32, one thread of the CPU where it was converted, 0 where nobody measured it; held: on rows that
    were held back from calibration: where it is there, the tolerance is of it, and of parity too but for what is CALIBRATED.
    """

    file: str
    tolerance: Tolerance
    parity: Parity
    differences: tuple[float, ...]
    worst: tuple[str, ...]
    bytes: int = 0
    speed: float = 0.0
    held: Parity | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """All that is kept of a conversion.

    source: where the model came from, with versions; against: whose answers it was held against, in words; unchecked: what no
    proof here shows; files: name -> SHA-256; crops: how many pieces of photographs were tried; proofs: by precision; declared:
    SHA-256 of what the MLmodel says of the flavor and its preprocessing, filled in when it is written.
    """

    source: Mapping[str, Any]
    against: str
    unchecked: tuple[str, ...]
    crops: int
    files: Mapping[str, str]
    proofs: Mapping[str, Proof]
    declared: str = ""

    def write(self, directory: Path, answers: Arrays) -> None:
        """Beside the model, whose MLmodel is there. answers: the original's, output name -> [rows,values], thinned."""
        document = {"version": _VERSION, **asdict(self), "unchecked": list(self.unchecked), "declared": declared(directory)}
        for proof in document["proofs"].values():
            proof |= {key: list(proof[key]) for key in ("differences", "worst")}
            if proof["held"] is None:
                del proof["held"]
            for parity in ("parity", "held"):
                if parity in proof:
                    proof[parity]["batches"] = list(proof[parity]["batches"])
        (directory / RECORD_FILE).write_text(f"{json.dumps(document, indent=1, sort_keys=True)}\n", encoding="utf-8")
        write_answers(directory / ANSWERS_FILE, answers)

    @classmethod
    def read(cls, directory: Path) -> tuple[Record, dict[str, npt.NDArray[Any]]]:
        """The record, and {output: [rows,kept values]}. Raises UnsupportedModel where there is none that can be read."""
        try:
            record = _record(read_json(directory / RECORD_FILE, _MOST_BYTES))
            return record, read_answers(directory / ANSWERS_FILE)
        except FileNotFoundError:
            if (directory / RECORD_FILE).exists():
                raise UnsupportedModel(
                    f"{directory}: no {ANSWERS_FILE} beside {RECORD_FILE}: it was deleted, or not copied; convert it again"
                ) from None
            raise UnsupportedModel(
                f"{directory}: no {RECORD_FILE}, so it was not converted by this tensign; convert it"
            ) from None


def _record(document: Field) -> Record:
    version = document.fields().get("version")
    if version is not None and version.value != _VERSION:
        raise UnsupportedModel(f"{document.file}: of a version that this tensign does not read; convert the model again")
    field = document.fields(("version", *(each.name for each in fields(Record))))
    field["version"].whole(_VERSION, _VERSION)
    source, proofs = field["source"].plain(), field["proofs"].fields()
    if not isinstance(source, dict) or not isinstance(source.get("versions", {}), dict):
        field["source"].refuse("a map, in which versions are a map")
    if "fp32" not in proofs or not proofs.keys() <= TOLERANCES.keys():
        raise UnsupportedModel(f"{document.file}: proofs: wanted fp32, and perhaps others of {', '.join(TOLERANCES)}")
    return Record(
        source,
        field["against"].text(),
        tuple(each.text() for each in field["unchecked"].items()),
        field["crops"].whole(0, MOST_CROPS),
        {Field(document.file, "files", name).file_name(): each.text() for name, each in field["files"].fields().items()},
        {name: _proof(each) for name, each in proofs.items()},
        field["declared"].text(),
    )


def _proof(document: Field) -> Proof:
    field = document.fields(("file", "tolerance", "parity", "differences", "worst"), optional=("bytes", "speed", "held"))
    tolerance = field["tolerance"].fields(("difference", "relative", "agreement"))
    parity = _parity(field["parity"])
    return Proof(
        field["file"].file_name(),
        Tolerance(tolerance["difference"].number(), tolerance["relative"].number(), tolerance["agreement"].number(1)),
        parity,
        tuple(each.number() for each in field["differences"].items(parity.rows, parity.rows)),
        tuple(each.text() for each in field["worst"].items(0, min(_BEST_KNOWN, parity.rows))),
        field["bytes"].whole(0, 1 << 53) if "bytes" in field else 0,
        field["speed"].number() if "speed" in field else 0.0,
        _parity(field["held"]) if "held" in field else None,
    )


def _parity(document: Field) -> Parity:
    field = document.fields([each.name for each in fields(Parity)])
    given, agreement, equal = (field[name] for name in ("network_input_difference", "top1_agreement", "equal_values"))
    return Parity(
        field["inputs"].text(),
        field["rows"].whole(1, _MOST_ROWS),
        tuple(each.whole(1, 1 << 12) for each in field["batches"].items(1, 64)),
        field["max_difference"].number(),
        field["mean_difference"].number(),
        field["relative_difference"].number(),
        field["spread"].number(),
        None if given.value is None else given.number(),
        None if agreement.value is None else agreement.number(1),
        None if equal.value is None else equal.number(1),
    )


def declared(directory: Path) -> str:
    """SHA-256 of the flavor and the preprocessing that an MLmodel declares, which MLflow leaves as they are; in hex."""
    manifest = read_mlmodel(directory)
    ours = manifest.metadata.get("tensign")
    preprocess = ours.get("preprocess") if isinstance(ours, Mapping) else None
    told = json.dumps(_sorted([manifest.flavors.get("tensign"), preprocess]), default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _sorted(value: Any) -> Any:
    """Maps as pairs: YAML's keys may be of kinds that have no order."""
    if isinstance(value, Mapping):
        return sorted(([str(key), _sorted(each)] for key, each in value.items()), key=lambda pair: str(pair[0]))
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def allowed(precision: str, task: str) -> Tolerance:
    """Beyond which a proof of that precision is refused; task: as in a plan."""
    of_task = TOLERANCES[precision]
    return of_task.get(task, of_task[""])


def proof(
    file: Path,
    tolerance: Tolerance,
    parity: Parity,
    differences: Sequence[float],
    names: Sequence[str],
    held: Parity | None = None,
) -> Proof:
    """names: of the rows, as many as differences."""
    order = sorted(range(len(differences)), key=lambda row: -differences[row])
    worst = tuple(names[row] for row in order[:_BEST_KNOWN])
    return Proof(file.name, tolerance, parity, tuple(differences), worst, file.stat().st_size, held=held)


def thinned(array: npt.NDArray[Any], width: int = _MOST_VALUES) -> npt.NDArray[Any]:
    """[rows,...] -> [rows,values], of more than `width` values of a row as many, evenly spread; text as fixed width."""
    flat = array.reshape(len(array), -1)
    flat = flat.astype(str) if flat.dtype == object else flat
    return flat if flat.shape[1] <= width else flat[:, np.linspace(0, flat.shape[1] - 1, width).astype(int)]


def gathered(chunks: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Thinned chunks as one array; rows with fewer values than others, of smaller pictures, end in zeros."""
    width = max(chunk.shape[1] for chunk in chunks)
    return np.concatenate([padded(chunk, width) for chunk in chunks])


def padded(chunk: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """[rows,values] -> [rows,width], with zeros."""
    return np.pad(chunk, ((0, 0), (0, width - chunk.shape[1]))) if chunk.shape[1] < width else chunk


def digest(file: Path) -> str:
    """SHA-256, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
