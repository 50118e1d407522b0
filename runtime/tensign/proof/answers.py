"""proof.npz, the original's answers: arrays of two axes that lie in it as they are, or a refusal before any is made."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tensign.errors import UnsupportedModel

_MOST_BYTES = 1 << 30  # of the file; the default tries some hundred rows of at most 4096 values
_MOST_OUTPUTS = 1000
_MOST_CODE_POINT = 0x10FFFF
_MOST = 1e300  # the median of larger ones overflows, and to infinity any difference is small
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<|](?:[iu][1248]|f[248]|b1|U[1-9]\d{0,5}))',"
    rb" 'fortran_order': (True|False), 'shape': \(([1-9]\d{0,9}), ([1-9]\d{0,9})\), \} *\n"
)


def write_answers(file: Path, answers: Mapping[str, npt.NDArray[Any]]) -> None:
    """{output: [rows,kept values]}, of any name: np.savez takes names for its own arguments, "file" among them."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in answers.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_answers(file: Path) -> dict[str, npt.NDArray[Any]]:
    """{output: [rows,kept values]}, numbers, booleans and text. Raises FileNotFoundError, UnsupportedModel for other content.

    Nothing is allocated but what the file holds: members are stored, not deflated, and a header has to fit its member.
    """
    try:
        if file.exists() and (not file.is_file() or file.stat().st_size > _MOST_BYTES):
            raise ValueError(f"wanted a file of at most {_MOST_BYTES} bytes")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check(members, file.stat().st_size)
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except FileNotFoundError:
        raise
    # RuntimeError: of an encrypted member; NotImplementedError: of a zip of features that nobody uses
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OverflowError, ValueError, OSError, EOFError) as error:
        raise UnsupportedModel(f"{file}: is broken: {str(error)[:200]}") from None


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    names = {member.filename for member in members}
    if not 1 <= len(members) <= _MOST_OUTPUTS or len(names) != len(members):
        raise ValueError(f"wanted 1 to {_MOST_OUTPUTS} outputs, each once, got {len(members)}")
    for member in members:
        if not member.filename.endswith(".npy") or member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename[:64]!a}: wanted an .npy that is stored, not deflated")
    total = sum(member.file_size for member in members)
    if total > size:
        raise ValueError(f"its outputs are said to hold {total} bytes, the whole file has {size}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    name, content = member.filename[:64], archive.read(member)
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(content[len(_MAGIC) : start], "little")
    header = _HEADER.fullmatch(content, start, end) if content.startswith(_MAGIC) else None
    if header is None:
        raise ValueError(f"{name!a}: wanted an array of numbers or text, [rows,values], got {content[start:][:60]!r}")
    dtype, shape = np.dtype(header[1].decode()), (int(header[3]), int(header[4]))
    if math.prod(shape) * dtype.itemsize != len(content) - end:
        raise ValueError(f"{name!a}: {dtype} {list(shape)} takes other than the {len(content) - end} bytes that are there")
    flat = np.frombuffer(content, dtype, offset=end)
    if dtype.kind == "U" and flat.view(np.uint32).max() > _MOST_CODE_POINT:
        raise ValueError(f"{name!a}: text of letters that there are not")
    if dtype == np.float64 and (np.isfinite(flat) & (np.abs(flat) > _MOST)).any():
        raise ValueError(f"{name!a}: numbers beyond {_MOST:g}")
    return flat.reshape(shape, order="F" if header[2] == b"True" else "C")
