"""An exported program's JSON -> a Program. What torch.export.load would evaluate, look up or unpickle is refused or not read.

Source: torch._export.serde.schema, major version 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from tensign.errors import UnsupportedModel, UntrustedModel
from tensign_converters.networks import operators
from tensign_converters.networks.literals import constant, field, union
from tensign_converters.networks.program import Program, Ref, Step

MAX_STEPS = 100_000
_PATH = re.compile(r"[\w-]{1,100}(\.[\w-]{1,100}){0,40}", re.ASCII)
_LIFTED = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}


def read_program(graph_module: Any, tensor: Callable[[str], Tensor]) -> Program:
    """tensor: gives a parameter, a buffer or a constant by its dotted name in the original.

    Raises UntrustedModel, which names the step, for what only the original's own code could do, and UnsupportedModel for a
    graph that is broken, changes its own buffers or was exported in training mode.
    """
    graph, signature = field(graph_module, "graph", dict), field(graph_module, "signature", dict)
    reader = _Reader()
    reader.inputs(field(graph, "inputs", list), field(signature, "input_specs", list))
    nodes = field(graph, "nodes", list)
    if len(nodes) > MAX_STEPS:
        raise UnsupportedModel(f"a program of more than {MAX_STEPS} steps")
    steps = [step for node in nodes for step in reader.step(node)]
    given = reader.outputs(field(signature, "output_specs", list))
    tensors = {path: tensor(path) for path in reader.lifted.values()}
    return Program(steps, reader.lifted, reader.constants, reader.taken, given, tensors).eval()


class _Reader:
    """Reads steps in order; a name is given once, and before it is asked for."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.lifted: dict[str, str] = {}
        self.constants: dict[str, Any] = {}
        self.taken: list[str] = []

    def inputs(self, inputs: list[Any], specs: list[Any]) -> None:
        if len(inputs) != len(specs):
            raise UnsupportedModel(f"a program of {len(inputs)} inputs whose signature has {len(specs)}")
        for spec in specs:
            kind, said = union(spec)
            if kind in _LIFTED:
                path = field(said, _LIFTED[kind], str)
                if not _PATH.fullmatch(path):
                    raise UnsupportedModel(f"a {kind.replace('_', ' ')} of an odd name, {path[:60]!a}")
                self.lifted[self._new(field(field(said, "arg", dict), "name", str))] = path
            elif kind == "user_input" and (given := union(field(said, "arg", dict)))[0] == "as_tensor":
                self.taken.append(self._new(field(given[1], "name", str)))
            elif kind == "constant_input":
                self.constants[self._new(field(said, "name", str))] = constant(*union(field(said, "value", dict)))
            else:
                raise UntrustedModel(f"an input that is neither a tensor nor a number: {kind[:50]}")
        if not self.taken:
            raise UnsupportedModel("a program that takes no tensor")

    def outputs(self, specs: list[Any]) -> list[str]:
        given = []
        for spec in specs:
            kind, said = union(spec)
            if kind != "user_output":
                _trains(f"it has an output of kind {kind[:50]}")
            kind, said = union(field(said, "arg", dict))
            if kind != "as_tensor" or said.get("name") not in self.known:
                raise UnsupportedModel(f"a program that answers other than with its tensors: {kind[:50]}")
            given.append(said["name"])
        if not given:
            raise UnsupportedModel("a program that answers nothing")
        return given

    def step(self, node: Any) -> Iterator[Step]:
        target = field(node, "target", str)
        if operators.asserts(target):
            return
        inputs = [(field(each, "name", str), union(field(each, "arg", dict))) for each in field(node, "inputs", list)]
        values = [self._argument(*argument, target) for _, argument in inputs]
        outputs = [union(each) for each in field(node, "outputs", list)]
        if (function := operators.size_function(target)) is not None:
            if not all(isinstance(value, Ref | bool | int | float) for value in values) or len(outputs) != 1:
                raise UnsupportedModel(f"{target} of other than sizes")
            yield Step(function, tuple(values), {}, self._result(*outputs[0]))
        elif (operator := operators.aten(target)) is not None:
            named = dict(zip((name for name, _ in inputs), values, strict=True))
            yield self._call(target, operator, named, outputs)
        else:
            raise UntrustedModel(f"it calls {target[:100]!a}, which is not among the operators that are run from data")

    def _call(self, target: str, operator: Any, values: dict[str, Any], outputs: list[tuple[str, Any]]) -> Step:
        schema = operator._schema
        if values.keys() - {argument.name for argument in schema.arguments}:
            raise UnsupportedModel(f"{target} with an argument that it does not have")
        if values.get("train") is True or (values.get("training") is True and values.get("running_mean") is not None):
            _trains(f"{target} trains")
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for index, argument in enumerate(schema.arguments):
            if argument.name not in values:
                continue
            value = values[argument.name]
            changed = argument.alias_info is not None and argument.alias_info.is_write
            if changed and isinstance(value, Ref) and value.name in self.lifted:
                _trains(f"{target} changes its {self.lifted[value.name]}")
            if argument.kwarg_only or len(args) != index:
                kwargs[argument.name] = value
            else:
                args.append(value)
        if len(outputs) != len(schema.returns):
            raise UnsupportedModel(f"{target} gives {len(schema.returns)} values, not {len(outputs)}")
        results = [self._result(*each) for each in outputs]
        return Step(operator, tuple(args), kwargs, results[0] if len(results) == 1 else results)

    def _argument(self, kind: str, value: Any, target: str) -> Any:
        if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
            return self._known(value)
        if kind in ("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools") and isinstance(value, list):
            return [self._known(each) for each in value]
        if kind == "as_optional_tensor":
            return self._argument(*union(value), target)
        if kind == "as_optional_tensors" and isinstance(value, list):
            return [self._argument(*union(each), target) for each in value]
        if kind == "as_device":
            return torch.device("cpu")  # wherever it was exported
        if kind in ("as_graph", "as_operator", "as_custom_obj"):
            raise UntrustedModel(f"{target[:100]} gets a {kind.removeprefix('as_').replace('_', ' ')}")
        return constant(kind, value)

    def _known(self, value: Any) -> Any:
        """The tensor or size that {"name": ...} or {"as_name": ...} means; a number where {"as_int": ...} stands."""
        if isinstance(value, dict) and len(value) == 1:
            ((kind, said),) = value.items()
            if kind not in ("name", "as_name"):
                return constant(kind, said)
            if isinstance(said, str) and said in self.known:
                return Ref(said)
        raise UnsupportedModel(f"a step asks for a value that no earlier one gave: {str(value)[:60]!a}")

    def _result(self, kind: str, value: Any) -> Any:
        """A name, None for nothing, or a list of such."""
        if kind == "as_none":
            return None
        if kind in ("as_tensors", "as_sym_ints", "as_sym_floats") and isinstance(value, list):
            return [self._result("as_tensor", each) for each in value]
        if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool") and isinstance(value, dict):
            return self._new(value.get("name", value.get("as_name")))
        raise UntrustedModel(f"a step gives a value of kind {kind[:50]}")

    def _new(self, name: Any) -> str:
        if not isinstance(name, str) or name in self.known:
            raise UnsupportedModel(f"two values of the name {str(name)[:60]!a}, or a name that is none")
        self.known.add(name)
        return name


def _trains(what: str) -> NoReturn:
    raise UnsupportedModel(f"{what[:200]}: it was exported in training mode; export it again after .eval()")
