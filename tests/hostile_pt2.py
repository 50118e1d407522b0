"""Exported programs that want to run code, to crash or to exhaust their reader: `python tests/hostile_pt2.py FOLDER`.

Those that would run something would touch the file of TENSIGN_CANARY. `says` is what the reader answers, "" where the hostile
part stays inert and the network is read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hostile_pickles import SHELL, TOUCH, Hostile
from hostile_pt2_members import containers, payloads
from pt2_archives import P_WEIGHT, Cases, Json, X, Z, archive, argument, meta, node, payload, program, ref, sizes

EVIL = f"__import__('os').system({SHELL!r})"
RUN_ARGUMENT = {"name": "command", "arg": {"as_string": SHELL}, "kind": 1}


def files() -> list[Hostile]:
    cases = {kind: cases() for kind, cases in _KINDS.items()}
    return [Hostile(f"{kind}: {name}", content, says) for kind, some in cases.items() for name, (content, says) in some.items()]


def _expressions() -> Cases:
    """Sizes that are reckoned: torch hands them to sympy, which evaluates them as Python; here none is read."""
    inert = program(guards_code=[EVIL], range_constraints={name: {"min_val": 2, "max_val": None} for name in ("s0", EVIL)})
    return {
        "a call": (archive(program(values={"x": meta(EVIL, 2)})), ""),
        "an attribute": (archive(program(values={"x": meta("s0.__class__", 2)})), ""),
        "a function of Python's": (archive(program(values={"x": meta("eval(s0)", 2)})), ""),
        "no end to match": (archive(program(values={"x": meta("a" * 200 + "!", 2)})), ""),
        "no text": (archive(program(graph={"sym_int_values": {"n": {"as_expr": {"expr_str": ["s0"]}}}})), ""),
        "of a value that nobody uses": (archive(program(graph={"sym_int_values": {"n": sizes(EVIL)[0]}})), ""),
        "of a step": (archive(program(node("torch.ops.aten.view.default", [
            argument("self", ref("x")), argument("size", {"as_sym_ints": [{"as_expr": {"expr_str": EVIL}}]}),
        ], "ran"))), "none that is known"),
        "of a weight": (archive(weights={"weight": payload() | {"tensor_meta": meta(EVIL, 2)}}), "no count"),
        "guards and ranges": (archive(inert), ""),
    }  # fmt: skip


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

    def number(name: str) -> Json:
        return {"as_sym_int": {"as_name": name}}

    rows = node("torch.ops.aten.sym_size.int", [argument("self", ref("x")), argument("dim", {"as_int": 0})])
    squares = [rows | {"outputs": [{"as_sym_int": {"as_name": "n0"}}]}]
    for index in range(60):
        twice = [argument("a", number(f"n{index}")), argument("b", number(f"n{index}"))]
        squares.append(node("_operator.mul", twice) | {"outputs": [{"as_sym_int": {"as_name": f"n{index + 1}"}}]})
    given = {"constant_input": {"name": "more", "value": {"as_string": "%99999999999d"}}}
    formatted = node("_operator.mod", [argument("a", number("more")), argument("b", {"as_int": 1})], "ran")
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
        "a size that squares itself": (archive(program(*squares)), "mul gives a size beyond 2**63"),
        "an input's text for a size": (archive(program(formatted, inputs=[P_WEIGHT, X, given])), "mod of other than sizes"),
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
    through = {
        "a name of it": [node("torch.ops.aten.detach.default", [argument("self", ref("p_weight"))], "alias")],
        "a dropout of it": [
            node(
                "torch.ops.aten.dropout.default",
                [argument("input", ref("p_weight")), argument("p", {"as_float": 0.5}), argument("train", {"as_bool": False})],
                "alias",
            )
        ],
        "a part of a name of it": [
            node("torch.ops.aten.t.default", [argument("self", ref("p_weight"))], "turned"),
            node(
                "torch.ops.aten.select.int",
                [argument("self", ref("turned")), argument("dim", {"as_int": 0}), argument("index", {"as_int": 1})],
                "alias",
            ),
        ],
    }
    add = node("torch.ops.aten.add_.Tensor", [argument("self", ref("alias")), argument("other", ref("alias"))], "grown")
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
        **{
            f"it changes a weight by {name}": (archive(program(*steps, add)), "changes one of the program's own tensors")
            for name, steps in through.items()
        },
        "it changes a copy of a weight": (
            archive(program(node("torch.ops.aten.clone.default", [argument("self", ref("p_weight"))], "alias"), add)),
            "",
        ),
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


_KINDS: dict[str, Callable[[], Cases]] = {
    "expression": _expressions,
    "target": _targets,
    "argument": _arguments,
    "signature": _signatures,
    "payload": payloads,
    "container": containers,
}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for index, each in enumerate(files()):
        (folder / f"{index:03d}").write_bytes(each.content)
        print(f"{index:03d}{os.sep}{each.name}: {each.says or 'read, inert'}")
