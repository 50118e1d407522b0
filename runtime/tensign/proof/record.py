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

from tensign.errors import UnsupportedModel
from tensign.proof.parity import Parity, Tolerance

RECORD_FILE, ANSWERS_FILE = "conversion.json", "proof.npz"
_VERSION = 1
_MOST_VALUES = 1 << 12  # of a row of an output that are kept
_BEST_KNOWN = 8

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Proof:
    """One file, held against the original.

    differences: the greatest of each row; worst: the names of the rows that differ most, the worst first.
    """

    file: str
    tolerance: Tolerance
    parity: Parity
    differences: tuple[float, ...]
    worst: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """All that is kept of a conversion.

    source: where the model came from, with versions; against: whose answers it was held against, in words; unchecked: what no
    proof here shows; files: name -> SHA-256; crops: how many pieces of photographs were tried; proofs: by precision.
    """

    source: Mapping[str, Any]
    against: str
    unchecked: tuple[str, ...]
    crops: int
    files: Mapping[str, str]
    proofs: Mapping[str, Proof]

    def write(self, directory: Path, answers: Arrays) -> None:
        """Beside the model. answers: the original's, output name -> [rows,values], thinned."""
        document = {"version": _VERSION, **asdict(self), "unchecked": list(self.unchecked)}
        for proof in document["proofs"].values():
            proof |= {key: list(proof[key]) for key in ("differences", "worst")}
            proof["parity"]["batches"] = list(proof["parity"]["batches"])
        (directory / RECORD_FILE).write_text(f"{json.dumps(document, indent=1, sort_keys=True)}\n", encoding="utf-8")
        np.savez(directory / ANSWERS_FILE, **answers)  # type: ignore[arg-type]

    @classmethod
    def read(cls, directory: Path) -> tuple[Record, dict[str, npt.NDArray[Any]]]:
        """The record, and {output: [rows,kept values]}. Raises UnsupportedModel where there is none that can be read."""
        try:
            document = json.loads((directory / RECORD_FILE).read_text(encoding="utf-8"))
            if document.pop("version") != _VERSION:
                raise UnsupportedModel(f"{directory / RECORD_FILE}: of a version that this tensign does not read")
            proofs = {str(name): _proof(proof) for name, proof in document.pop("proofs").items()}
            record = cls(**{**document, "unchecked": tuple(document["unchecked"])}, proofs=proofs)
            with np.load(directory / ANSWERS_FILE, allow_pickle=False) as kept:
                return record, dict(kept)
        except FileNotFoundError as missing:
            raise UnsupportedModel(
                f"{directory}: no {Path(str(missing.filename)).name}, so it was not converted by this tensign; convert it again"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OSError, EOFError) as error:
            raise UnsupportedModel(f"{directory}: {RECORD_FILE} or {ANSWERS_FILE} is broken: {error}") from None


def _proof(document: Mapping[str, Any]) -> Proof:
    parity = {**document["parity"], "batches": tuple(document["parity"]["batches"])}
    return Proof(
        str(document["file"]),
        Tolerance(**document["tolerance"]),
        Parity(**{field.name: parity[field.name] for field in fields(Parity)}),
        tuple(map(float, document["differences"])),
        tuple(map(str, document["worst"])),
    )


def proof(file: str, tolerance: Tolerance, parity: Parity, differences: Sequence[float], names: Sequence[str]) -> Proof:
    """names: of the rows, as many as differences."""
    order = sorted(range(len(differences)), key=lambda row: -differences[row])
    return Proof(file, tolerance, parity, tuple(differences), tuple(names[row] for row in order[:_BEST_KNOWN]))


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
