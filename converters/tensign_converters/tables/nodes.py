"""Nodes and constants of a graph under construction, each under a name of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tensign.engines.onnx import MISSING_TEXT

ML = "ai.onnx.ml"
MISSING = "missing"
ODD: dict[str, tuple[str, list[Any]]] = {  # what a column may hold: by the operator that finds it, or MISSING
    "IsNaN": ("NaN", [np.nan]),
    "IsInf": ("infinity", [np.inf, -np.inf]),
    MISSING: ("missing text", [None]),
}


class Nodes(ABC):
    """What both kinds of graphs have."""

    @abstractmethod
    def add(self, kind: str, *inputs: str, domain: str = "", output: str = "", name: str = "", **attributes: Any) -> str:
        """One node; gives the name of its one output. name: what the node's begins with, where that matters."""

    @abstractmethod
    def constant(self, values: npt.ArrayLike) -> str:
        """Numbers or text."""

    def cast(self, value: str, kind: int) -> str:
        return self.add("Cast", value, to=kind)

    def refusing(self, x: str, kind: str, checked: str) -> str:
        """x; but where `checked` has such a value the run fails, for then something is looked up in a place that is not there.

        kind: of ODD. ONNX Runtime's Gather of text loses all but the first of several, so x itself is not what is looked up.
        """
        found = self.add("Equal", checked, self.constant(MISSING_TEXT)) if kind == MISSING else self.add(kind, checked)
        place = self.add("ReduceMax", self.cast(found, TensorProto.INT64), keepdims=0)
        there = self.add("Gather", self.constant([True]), place, name=f"refuses {ODD[kind][0]}")
        return self.add("Where", there, x, x)


class Graph(Nodes):
    """What skl2onnx hands to a converter, its scope, its operator and its container, as values that nodes take and give."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._container = scope, container
        self.inputs: list[tuple[str, Any]] = [(variable.full_name, variable.type) for variable in operator.inputs]
        self.outputs: list[str] = [variable.full_name for variable in operator.outputs]

    def add(self, kind: str, *inputs: str, domain: str = "", output: str = "", name: str = "", **attributes: Any) -> str:
        output = output or str(self._scope.get_unique_variable_name(kind.lower()))
        name = self._scope.get_unique_operator_name(name or kind)
        self._container.add_node(kind, list(inputs), [output], op_domain=domain, name=name, **attributes)
        return output

    def constant(self, values: npt.ArrayLike) -> str:
        array = np.asarray(values)
        name = str(self._scope.get_unique_variable_name("constant"))
        kind = TensorProto.STRING if array.dtype.kind == "U" else helper.np_dtype_to_tensor_dtype(array.dtype)
        self._container.add_initializer(name, kind, list(array.shape), array.ravel())
        return name

    def joined(self) -> str:
        """All inputs side by side."""
        names = [name for name, _ in self.inputs]
        return names[0] if len(names) == 1 else self.add("Concat", *names, axis=1)

    def columns(self) -> list[tuple[str, Any]]:
        """Each column of each input, [n,1], with the input's type."""
        found = []
        for name, kind in self.inputs:
            width = kind.shape[1]
            for index in range(width):
                one = name if width == 1 else self.add("Gather", name, self.constant([index]), axis=1)
                found.append((one, kind))
        return found


class Parts(Nodes):
    """Lists, of which an ONNX graph is made in the end; prefix: before the names of what is given none."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.inputs: list[ValueInfoProto] = []
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.outputs: list[ValueInfoProto] = []

    def add(self, kind: str, *inputs: str, domain: str = "", output: str = "", name: str = "", **attributes: Any) -> str:
        output = output or f"{self._prefix}{kind.lower()}{len(self.nodes)}"
        name = f"{name or self._prefix + kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, domain=domain, **attributes))
        return output

    def constant(self, values: npt.ArrayLike) -> str:
        name = f"{self._prefix}constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def tensor(values: npt.ArrayLike) -> TensorProto:
    """An attribute that is a tensor."""
    return numpy_helper.from_array(np.asarray(values))
