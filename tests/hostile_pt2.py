"""Exported programs that want to run code, to crash or to exhaust their reader: `python tests/hostile_pt2.py FOLDER`.

Archives as torch.export.save lays them out, put together by hand. Those that would run something would touch the file of
TENSIGN_CANARY. `says` is what the reader answers, "" where the hostile part stays inert and the network is read.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_pickles import LINK, RUN, SHELL, TOUCH, Hostile, call, dict_of, named, packed, tensor, whole, zipped

Json = dict[str, Any]
EVIL = f"__import__('os').system({SHELL!r})"
LEAF: Json = {"type": None, "context": None, "children_spec": []}
WEIGHT = struct.pack("<4f", 1, -1, 2, 0.5)
PICKLED = zipped(RUN)
RUN_ARGUMENT = {"name": "command", "arg": {"as_string": SHELL}, "kind": 1}


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


STATE = zipped(dict_of({"weight": tensor()}), storages=(WEIGHT,))


def files() -> list[Hostile]:
    cases = {kind: cases() for kind, cases in _KINDS.items()}
    return [Hostile(f"{kind}: {name}", content, says) for kind, some in cases.items() for name, (content, says) in some.items()]


Cases = dict[str, tuple[bytes, str]]


def _expressions() -> Cases:
    refused = "a size that is no arithmetic"
    inert = program(guards_code=[EVIL], range_constraints={name: {"min_val": 2, "max_val": None} for name in ("s0", EVIL)})
    return {
        "a call": (archive(program(values={"x": meta(EVIL, 2)})), refused),
        "an attribute": (archive(program(values={"x": meta("s0.__class__", 2)})), refused),
        "a function of Python's": (archive(program(values={"x": meta("eval(s0)", 2)})), refused),
        "a text": (archive(program(values={"x": meta("Symbol('s0, s1')", 2)})), refused),
        "no text": (archive(program(graph={"sym_int_values": {"n": {"as_expr": {"expr_str": ["s0"]}}}})), refused),
        "of a value that nobody uses": (archive(program(graph={"sym_int_values": {"n": sizes(EVIL)[0]}})), refused),
        "of a weight": (archive(weights={"weight": payload() | {"tensor_meta": meta(EVIL, 2)}}), "no count"),
        "guards and ranges": (archive(inert), ""),
    }


def _targets() -> Cases:
    refused = "not among the operators that are run from data"
    dotted = (
        "torch.os.system", "torch.ops.load_library", "torch.load", "torch.hub.load", "torch.utils.cpp_extension.load_inline",
        "torch.ops.aten.__class__", "torch._sources.exec", "_operator.methodcaller", "_operator.attrgetter", "_operator.call",
        "math.__loader__.load_module", "os.system", "builtins.exec", "#evil:run", "", "torch.ops.evil.run.default",
        "torch.ops.higher_order.triton_kernel_wrapper_functional", "torch.ops.higher_order.call_torchbind",
        "torch.ops.aten.lstm.input", "torch.ops.aten.take_along_dim.default", "torch.ops.aten.gather.default",
        "torch.ops.aten._native_batch_norm_legit_no_training.default", "torch.ops.aten.upsample_nearest2d.default",
        "torch.ops.aten.from_file.default", "torch.ops.aten.as_strided.default", "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten.empty.memory_format", "torch.ops.aten.resize_.default", "torch.ops.aten.add.out",
        "torch.ops.aten.add.__class__", "torch.ops.aten.add", "torch.ops.prims.device_put.default",
    )  # fmt: skip
    cases = {target or "no name": (archive(program(node(target, [RUN_ARGUMENT], "ran"))), refused) for target in dotted}
    subgraph = {"as_graph": {"name": "evil", "graph": {"nodes": [node("torch.os.system", [RUN_ARGUMENT], "ran")]}}}
    body = [argument("self", ref("x"))]
    return cases | {
        "a graph in a graph": (
            archive(program(node("torch.ops.higher_order.cond", [argument("", subgraph)], "ran"))),
            "gets a graph",
        ),
        "metadata": (
            archive(
                program(
                    node(
                        "torch.ops.aten.neg.default",
                        body,
                        "ran",
                        source_fn_stack=f"x,torch.os.system;{EVIL}",
                        torch_fn=EVIL,
                        custom="{",
                        from_node="[",
                    )
                )
            ),
            "",
        ),
    }


def _arguments() -> Cases:
    def neg(value: Json, name: str = "self") -> bytes:
        return archive(program(node("torch.ops.aten.neg.default", [argument(name, value)], "ran")))

    deep: Json = ref("x")
    for _ in range(400):
        deep = {"as_optional_tensor": deep}
    percent = [argument("a", {"as_string": "%99999999999d"}), argument("b", {"as_int": 1})]
    return {
        "an operator": (neg({"as_operator": "torch.os.system"}), "gets a operator"),
        "an object": (neg({"as_custom_obj": {"name": "evil", "class_fqn": "os.system"}}), "gets a custom obj"),
        "of two kinds": (neg({"as_int": 1, "as_float": 1.0}), "of one kind"),
        "of no known kind": (neg({"as_evil": EVIL}), "none that is known"),
        "a number that is a text": (neg({"as_int": EVIL}), "none that is known"),
        "a huge number": (neg({"as_int": 1 << 200}), "none that is known"),
        "a type that is none": (neg({"as_scalar_type": [7]}), "none that is known"),
        "nested deep": (neg(deep), ""),
        "that the operator does not have": (neg(ref("x"), "out"), "an argument that it does not have"),
        "a value of later": (neg(ref("z")), "no earlier one gave"),
        "a value of nowhere": (neg(ref("__builtins__")), "no earlier one gave"),
        "text for a size": (archive(program(node("_operator.mod", percent, "ran"))), "of other than sizes"),
        "a list for a size": (
            archive(
                program(node("_operator.mul", [argument("a", {"as_ints": [1]}), argument("b", {"as_int": 1 << 40})], "ran"))
            ),
            "of other than sizes",
        ),
        "too many answers": (
            archive(program(node("torch.ops.aten.neg.default", [argument("self", ref("x"))], "a", "b"))),
            "gives 1 values, not 2",
        ),
        "an answer that is there": (
            archive(program(node("torch.ops.aten.neg.default", [argument("self", ref("x"))], "x"))),
            "two values of the name",
        ),
        "an answer of another kind": (
            archive(
                program(node("torch.ops.aten.neg.default", [argument("self", ref("x"))]) | {"outputs": [{"as_custom_obj": {}}]})
            ),
            "gives a value of kind",
        ),
    }


def _signatures() -> Cases:
    def held(name: str) -> bytes:
        spec = {"parameter": {"arg": {"name": "p_weight"}, "parameter_name": name}}
        return archive(program(inputs=[spec, X]), weights={name: payload()})

    custom = {"custom_obj": {"arg": {"name": "more", "class_fqn": "os.system"}, "custom_obj_name": "evil"}}
    evil = {
        "type": "collections.defaultdict",
        "context": json.dumps({"default_factory_module": "os", "default_factory_name": "system", "dict_context": []}),
        "children_spec": [],
    }
    named_tuple = {"type": "evil.Evil", "context": json.dumps({"class_name": "Evil", "fqn": "os.system"}), "children_spec": []}
    grow = node("torch.ops.aten.add_.Tensor", [argument("self", ref("p_weight")), argument("other", ref("y"))], "grown")
    drop = node(
        "torch.ops.aten.dropout.default",
        [argument("input", ref("y")), argument("p", {"as_float": 0.5}), argument("train", {"as_bool": True})],
        "d",
    )
    mutation = {"buffer_mutation": {"arg": {"name": "y"}, "buffer_name": "weight"}}
    return {
        "an object as input": (archive(program(inputs=[P_WEIGHT, X, custom])), "neither a tensor nor a number"),
        "a token as input": (
            archive(program(inputs=[P_WEIGHT, X, {"token": {"arg": {"name": "more"}}}])),
            "neither a tensor nor a number",
        ),
        "fewer inputs than it says": (archive(program(inputs=[P_WEIGHT])), "takes no tensor"),
        "a tensor called __class__": (held("__class__"), "a tensor of an odd name"),
        "a tensor called forward.weight": (held("forward.weight"), "a tensor of an odd name"),
        "a tensor called __dict__.forward": (held("__dict__.forward"), "a tensor of an odd name"),
        "a tensor of code": (held(f"weight\n{TOUCH}"), "of an odd name"),
        "a tensor that leads elsewhere": (held("../../weight"), "of an odd name"),
        "a tensor that is not there": (archive(weights={"other": payload()}), "not in the file"),
        "a tree of a factory": (archive(program(spec=evil)), ""),
        "a tree of a named tuple": (archive(program(spec=named_tuple)), ""),
        "a tree of text": (archive(program(spec=TOUCH)), ""),
        "it changes a weight": (archive(program(grow)), "exported in training mode"),
        "it drops at random": (archive(program(drop)), "exported in training mode"),
        "it keeps a buffer": (archive(program(outputs=[mutation, Z])), "exported in training mode"),
        "it answers with a number": (
            archive(program(outputs=[{"user_output": {"arg": {"as_int": 1}}}])),
            "other than with its tensors",
        ),
        "it answers nothing": (archive(program(outputs=[])), "answers nothing"),
        "another schema": (archive(program(schema_version={"major": 7, "minor": 0})), "schema 7"),
        "verifiers": (archive(program(verifiers=[TOUCH])), ""),
    }


def _payloads() -> Cases:
    def constant(file: str, content: bytes = PICKLED) -> bytes:
        spec = {"tensor_constant": {"arg": {"name": "more"}, "tensor_constant_name": "evil"}}
        document = program(inputs=[P_WEIGHT, X, spec])
        return archive(document, (f"model/data/constants/{file}", content), constants={"evil": payload(file, pickled=True)})

    def weight(**said: Any) -> bytes:
        return archive(weights={"weight": payload(**said)})

    together = "model/data/weights/model.pt"
    rebuilt = zipped(dict_of({"weight": call(named("torch._utils", "_rebuild_tensor_v2"), RUN, RUN, RUN, RUN)}))
    hooked = zipped(dict_of({"weight": tensor(hooks=RUN)}), storages=(WEIGHT,))
    many = {"weight": payload(), "again": payload(dtype=5)}
    again: Json = {"buffer": {"arg": {"name": "more"}, "buffer_name": "again", "persistent": True}}
    return {
        "a pickled weight": (
            archive(None, ("model/data/weights/weight_1", PICKLED), weights={"weight": payload("weight_1", pickled=True)}),
            "no tensor but os.system",
        ),
        "an object": (constant("custom_obj_0"), "an object of the file's own"),
        "an opaque object": (constant("opaque_obj_0", whole(RUN)), "an object of the file's own"),
        "a pickled constant": (constant("tensor_0"), "no tensor but os.system"),
        "sample inputs": (
            archive(None, ("model/data/sample_inputs/model.pt", PICKLED), without=("data/sample_inputs/model.pt",)),
            "",
        ),
        "weights in one pickle": (archive(None, (together, zipped(dict_of({"weight": RUN})))), "no tensor but os.system"),
        "weights that are a call": (archive(None, (together, PICKLED)), "not in the file"),
        "weights by a call of torch's": (archive(None, (together, rebuilt)), "whose storage is none"),
        "weights with hooks": (archive(None, (together, hooked)), ""),
        "weights in no pickle": (archive(None, (together, TOUCH.encode())), "a broken zip"),
        "2.7: weights that are a call": (flat(PICKLED), "not in the file"),
        "2.7: a weight that is a call": (flat(zipped(dict_of({"weight": RUN}))), "no tensor but os.system"),
        "2.7: example inputs": (flat(STATE, **{"serialized_example_inputs.pt": PICKLED}), ""),
        "2.7: constants": (flat(STATE, **{"serialized_constants.pt": PICKLED}), ""),
        "beyond its bytes": (
            archive(weights={"weight": payload() | {"tensor_meta": meta(1 << 20, 1 << 20)}}),
            "in a storage of 4 elements",
        ),
        "strides beyond its bytes": (weight(strides=sizes(1 << 40, 1)), "in a storage of 4 elements"),
        "negative strides": (weight(strides=sizes(-1, 1)), "no count"),
        "a negative offset": (weight(offset=-4), "no count"),
        "an offset beyond its bytes": (weight(offset=1 << 40), "in a storage of 4 elements"),
        "strides of one axis": (weight(strides=sizes(1)), "2 sizes and 1 strides"),
        "a type that is none": (weight(dtype=99), "a type that is not known"),
        "half a number": (
            archive(None, ("model/data/weights/weight_1", b"123"), weights={"weight": payload("weight_1")}),
            "has 3 bytes",
        ),
        "a member that is not there": (archive(weights={"weight": payload("weight_7")}), "is not there"),
        "a member elsewhere": (archive(weights={"weight": payload("../../../etc/passwd")}), "an object of the file's own"),
        "one member of two types": (
            archive(program(inputs=[P_WEIGHT, X, again]), weights=many),
            "is float32 here and int64 there",
        ),
    }


def _containers() -> Cases:
    document = json.dumps(program()).encode()
    twice = document[:-1] + b', "schema_version": {"major": 8}}'
    steps = [RELU | {"outputs": [ref(f"v{index}")]} for index in range(100_001)]
    bomb = packed(
        ("model/archive_format", b"pt2"), ("model/models/model.json", bytes(1 << 26)), compression=zipfile.ZIP_DEFLATED
    )
    return {
        "compiled code": (archive(None, ("model/data/aotinductor/model/evil.so", b"\x7fELF")), "compiled code"),
        "nothing but compiled code": (
            archive(None, ("model/data/aotinductor/model/evil.so", b"\x7fELF"), without=("models/model.json",)),
            "compiled code",
        ),
        "two programs": (archive(None, ("model/models/evil.json", document)), "2 programs"),
        "no program": (archive(without=("models/model.json",)), "0 programs"),
        "no weights": (archive(without=("data/weights/model_weights_config.json",)), "without the member"),
        "two members of a name": (archive(None, ("model/models/model.json", document)), "two members of the name"),
        "a member that leads elsewhere": (archive(None, ("../evil.pth", b"")), "leads elsewhere"),
        "a link": (archive(None, (LINK, b"/etc/passwd")), "a zip with a link"),
        "a bomb": (bomb, "compressed or encrypted"),
        "another byte order": (archive(None, ("model/byteorder", b"big"), without=("byteorder",)), "not little-endian"),
        "no JSON": (archive(TOUCH.encode()), "is no JSON"),
        "no UTF-8": (archive(b"\xff\xfe"), "is no JSON"),
        "a list": (archive(b"[]"), "wanted its schema_version"),
        "JSON nested deep": (archive(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "too deep"),
        "JSON of a huge number": (archive(b'{"schema_version": ' + b"9" * 100_000 + b"}"), "is no JSON"),
        "a field twice": (archive(twice), "two fields of one name"),
        "too many steps": (archive(program(*steps)), "more than 100000 steps"),
    }


_KINDS: dict[str, Callable[[], Cases]] = {
    "expression": _expressions,
    "target": _targets,
    "argument": _arguments,
    "signature": _signatures,
    "payload": _payloads,
    "container": _containers,
}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for index, each in enumerate(files()):
        (folder / f"{index:03d}").write_bytes(each.content)
        print(f"{index:03d}{os.sep}{each.name}: {each.says or 'read, inert'}")
