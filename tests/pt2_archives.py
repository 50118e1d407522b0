"""Archives as torch.export.save lays them out, put together by hand."""

from __future__ import annotations

import json
import struct
import zipfile
from typing import Any

from hostile_pickles import packed

Json = dict[str, Any]
Cases = dict[str, tuple[bytes, str]]  # by name: a file, and what its reader says of it
LEAF: Json = {"type": None, "context": None, "children_spec": []}
WEIGHT = struct.pack("<4f", 1, -1, 2, 0.5)


def ref(name: str) -> Json:
    return {"as_tensor": {"name": name}}


def argument(name: str, value: Json) -> Json:
    return {"name": name, "arg": value, "kind": 1}


def node(target: str, inputs: list[Json], *outputs: str, **metadata: str) -> Json:
    return {"target": target, "inputs": inputs, "outputs": [ref(name) for name in outputs], "metadata": metadata}


def sizes(*values: int | str) -> list[Json]:
    return [{"as_int": each} if isinstance(each, int) else {"as_expr": {"expr_str": each, "hint": None}} for each in values]


def meta(*shape: int | str, dtype: int = 7, strides: list[Json] | None = None, offset: int = 0) -> Json:
    device = {"type": "cpu", "index": None}
    strides = sizes(2, 1) if strides is None else strides
    said = {"dtype": dtype, "sizes": sizes(*shape), "strides": strides, "storage_offset": {"as_int": offset}}
    return {**said, "requires_grad": False, "device": device, "layout": 7}


def payload(file: str = "weight_0", *, pickled: bool = False, **said: Any) -> Json:
    return {"path_name": file, "is_param": True, "use_pickle": pickled, "tensor_meta": meta(2, 2, **said)}


LINEAR = node("torch.ops.aten.linear.default", [argument("input", ref("x")), argument("weight", ref("p_weight"))], "y")
RELU = node("torch.ops.aten.relu.default", [argument("self", ref("y"))], "z")
X: Json = {"user_input": {"arg": ref("x")}}
P_WEIGHT: Json = {"parameter": {"arg": {"name": "p_weight"}, "parameter_name": "weight"}}
Z: Json = {"user_output": {"arg": ref("z")}}


def program(
    *nodes: Json,
    inputs: list[Json] | None = None,
    outputs: list[Json] | None = None,
    values: Json | None = None,
    graph: Json | None = None,
    spec: Any = LEAF,
    **more: Any,
) -> Json:
    """relu(x @ weight.T) with the nodes between, and the changes given."""
    specs = [P_WEIGHT, X] if inputs is None else inputs
    rows = "Symbol('s0', positive=True, integer=True)"
    known = {"p_weight": meta(2, 2), **{name: meta(rows, 2) for name in ("x", "y", "z", "ran", "more")}}
    said: Json = {
        "inputs": [ref("p_weight"), ref("x")][: len(specs)] + [ref("more")] * (len(specs) - 2),
        "outputs": [ref("z")],
        "nodes": [LINEAR, *nodes, RELU],
        "tensor_values": {**known, **(values or {})},
        "sym_int_values": {},
        "sym_bool_values": {},
        **(graph or {}),
    }
    taken = {"type": "builtins.tuple", "context": "null", "children_spec": [
        {"type": "builtins.tuple", "context": "null", "children_spec": [spec]},
        {"type": "builtins.dict", "context": "[]", "children_spec": []},
    ]}  # fmt: skip
    calls = [
        {
            "fqn": "",
            "signature": {"inputs": [], "outputs": [], "in_spec": json.dumps([1, taken]), "out_spec": json.dumps([1, spec])},
        }
    ]
    signature = {"input_specs": specs, "output_specs": [Z] if outputs is None else outputs}
    graph_module = {"graph": said, "signature": signature, "module_call_graph": calls, "metadata": {}}
    return {
        "graph_module": graph_module,
        "opset_version": {"aten": 10},
        "range_constraints": {"s0": {"min_val": 2, "max_val": None}},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.14.1",
        **more,
    }


def archive(
    document: Json | bytes | None = None,
    *more: tuple[str, bytes] | tuple[zipfile.ZipInfo, bytes],
    weights: Json | None = None,
    constants: Json | None = None,
    without: tuple[str, ...] = (),
) -> bytes:
    """A pt2 archive; without: members that are left out."""
    document = program() if document is None else document
    members: dict[str, bytes] = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"3\n",
        "models/model.json": document if isinstance(document, bytes) else json.dumps(document).encode(),
        "data/weights/model_weights_config.json": json.dumps({"config": weights or {"weight": payload()}}).encode(),
        "data/weights/weight_0": WEIGHT,
        "data/constants/model_constants_config.json": json.dumps({"config": constants or {}}).encode(),
        "data/sample_inputs/model.pt": b"",
    }
    kept = [(f"model/{name}", content) for name, content in members.items() if name not in without]
    return packed(*kept, *more)


def flat(state: bytes, **more: bytes) -> bytes:
    """The layout of torch 2.5 to 2.7."""
    parts = {"serialized_state_dict.pt": state, "serialized_constants.pt": b"", "serialized_example_inputs.pt": b"", **more}
    document = json.dumps(program()).encode()
    return packed(("serialized_exported_program.json", document), ("version", b"8.2"), *parts.items())
