"""A file that torch.export.save wrote -> its program, as a module; torch.export.load, which runs what it reads, is not used.

Layouts: torch 2.9's and later, 2.8's with the weights in one pickle, and the flat zip of 2.5 to 2.7.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from tensign.errors import UnsupportedModel
from tensign.specs import TensorSpec
from tensign_converters.networks.literals import field, union
from tensign_converters.networks.payloads import described_in, dtype, pickled_in, read_json
from tensign_converters.networks.program import Program
from tensign_converters.networks.schema import read_program
from tensign_converters.pickles.members import Members

_MAJOR = 8
_FLAT = "serialized_exported_program.json"
_COMPILED = ("data/aotinductor/", "data/executorch/", "data/mtia/")
# What torch writes of sizes: numbers, symbols, arithmetic, and functions of sympy's and of its own.
_EXPRESSION = re.compile(r"(\w+|\d+\.\d+|'\w+'|[-+*/%(),=<>&|~ ])*", re.ASCII)
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,4}\d+|e\d*", re.ASCII)
_WORDS = frozenset(
    """
    Symbol Integer Float Rational Add Mul Pow Max Min Mod Abs Eq Ne Lt Le Gt Ge And Or Not Piecewise ceiling floor oo int_oo
    FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow
    FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity
    positive nonnegative integer real evaluate True False
    """.split()
)


def is_pt2(names: list[str]) -> bool:
    """Whether a zip with members of these names is torch.export's, of any age, or was compiled from such."""
    return _FLAT in names or any(name.count("/") == 1 and name.endswith("/archive_format") for name in names)


def read_pt2(members: Members) -> tuple[Program, tuple[TensorSpec, ...], tuple[TensorSpec, ...], str]:
    """The program, what it takes, what it gives, and the torch that wrote it. An axis of any length is -1 there.

    Raises UntrustedModel for what only code of the file's own, or a pickle of it, could do, and UnsupportedModel for what is
    broken or of a layout that is not known.
    """
    try:
        return _read(members)
    except RecursionError:
        raise UnsupportedModel("a program nested within itself, or too deep") from None


def _read(members: Members) -> tuple[Program, tuple[TensorSpec, ...], tuple[TensorSpec, ...], str]:
    file, tensors = _flat(members) if _FLAT in members.names else _foldered(members)
    document = read_json(members, file)
    version = field(document, "schema_version", dict)
    if version.get("major") != _MAJOR:
        raise UnsupportedModel(
            f"a program of schema {str(version.get('major'))[:20]}, wanted {_MAJOR}, torch 2.5's and later: export it again"
        )
    graph_module = field(document, "graph_module", dict)
    _check_expressions(document)
    program = read_program(graph_module, tensors)
    known = field(field(graph_module, "graph", dict), "tensor_values", dict)
    inputs = tuple(_spec(name, known.get(name)) for name in program.taken)
    names = _output_names(graph_module, len(program.given))
    outputs = tuple(
        _spec(names[index] if names else f"output-{index}", known.get(name), named=bool(names))
        for index, name in enumerate(program.given)
    )
    return program, inputs, outputs, str(document.get("torch_version", "an unknown version"))[:40]


def _foldered(members: Members) -> tuple[str, Callable[[str], Tensor]]:
    root = members.names[0].partition("/")[0]
    if compiled := [name for name in members.names if name.removeprefix(f"{root}/").startswith(_COMPILED)]:
        raise UnsupportedModel(f"it holds compiled code, {compiled[0][:100]!a}: give the program that it was compiled from")
    members.check_order(f"{root}/byteorder")
    models = [name for name in members.names if name.startswith(f"{root}/models/") and name.endswith(".json")]
    if len(models) != 1:
        raise UnsupportedModel(f"an archive of {len(models)} programs, wanted one")
    name = models[0].removeprefix(f"{root}/models/").removesuffix(".json")
    found: dict[str, Callable[[], Tensor]] = {}
    for kind in ("weights", "constants"):
        folder = f"{root}/data/{kind}/"
        whole = f"{folder}{name}.pt"  # torch 2.8's
        if members.size(whole) is not None:
            found.update(pickled_in(members, whole))
        else:
            found.update(described_in(members, folder, f"{name}_{kind}_config.json"))
    return models[0], _lookup(found)


def _flat(members: Members) -> tuple[str, Callable[[str], Tensor]]:
    found: dict[str, Callable[[], Tensor]] = {}
    for name in ("serialized_state_dict", "serialized_constants"):
        file = f"{name}.pt" if members.size(f"{name}.pt") is not None else f"{name}.json"  # an older name of the same pickle
        found.update(pickled_in(members, file))
    return _FLAT, _lookup(found)


def _lookup(found: dict[str, Callable[[], Tensor]]) -> Callable[[str], Tensor]:
    def tensor(path: str) -> Tensor:
        if path not in found:
            raise UnsupportedModel(f"a program that takes {path[:100]!a}, which is not in the file")
        return found[path]()

    return tensor


def _spec(name: str, meta: Any, *, named: bool = True) -> TensorSpec:
    """Name, dtype and shape of what a program takes or gives."""
    kind = dtype(field(meta, "dtype", int))
    sizes = [union(each) for each in field(meta, "sizes", list)]
    shape = tuple(size if kind == "as_int" and type(size) is int else -1 for kind, size in sizes)
    if kind == "bfloat16":
        raise UnsupportedModel(f"{name[:100]!a} is bfloat16, which NumPy and MLflow do not have")
    return TensorSpec(name, np.dtype(kind), shape, named)


def _output_names(graph_module: dict[str, Any], count: int) -> list[str]:
    """The keys of the flat dict in which the original answers; none where it answers otherwise."""
    calls = graph_module.get("module_call_graph")
    whole = calls[0].get("signature") if isinstance(calls, list) and calls and isinstance(calls[0], dict) else None
    try:
        _, spec = json.loads(whole["out_spec"]) if isinstance(whole, dict) else (1, {})
        names = json.loads(spec["context"]) if spec["type"] in ("builtins.dict", "collections.OrderedDict") else []
    except (KeyError, TypeError, ValueError):
        return []
    fits = isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
    return names if fits else []


def _check_expressions(document: Any) -> None:
    """Raises UnsupportedModel for a size that is no arithmetic: torch would hand it to sympy, which evaluates it as Python."""
    rest = [document]
    while rest:
        each = rest.pop()
        if isinstance(each, dict):
            text = each.get("expr_str", "")
            words = set(_WORD.findall(text)) if isinstance(text, str) and _EXPRESSION.fullmatch(text) else {""}
            if not all(word in _WORDS or _SYMBOL.fullmatch(word) for word in words):
                raise UnsupportedModel(f"a size that is no arithmetic: {str(text)[:100]!a}")
            rest.extend(each.values())
        elif isinstance(each, list):
            rest.extend(each)
