"""Nodes and constants inside a graph that skl2onnx builds, each under a name of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"


class Graph:
    """What skl2onnx hands to a converter, its scope, its operator and its container, as values that nodes take and give."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._container = scope, container
        self.inputs: list[tuple[str, Any]] = [(variable.full_name, variable.type) for variable in operator.inputs]
        self.outputs: list[str] = [variable.full_name for variable in operator.outputs]

    def add(self, kind: str, *inputs: str, domain: str = "", output: str = "", name: str = "", **attributes: Any) -> str:
        """One node; gives the name of its one output. name: of the node, where that matters."""
        output = output or str(self._scope.get_unique_variable_name(kind.lower()))
        name = name or self._scope.get_unique_operator_name(kind)
        self._container.add_node(kind, list(inputs), [output], op_domain=domain, name=name, **attributes)
        return output

    def constant(self, values: npt.ArrayLike) -> str:
        """Numbers or text."""
        array = np.asarray(values)
        name = str(self._scope.get_unique_variable_name("constant"))
        kind = TensorProto.STRING if array.dtype.kind == "U" else helper.np_dtype_to_tensor_dtype(array.dtype)
        self._container.add_initializer(name, kind, list(array.shape), array.ravel())
        return name

    def joined(self) -> str:
        """All inputs side by side."""
        names = [name for name, _ in self.inputs]
        return names[0] if len(names) == 1 else self.add("Concat", *names, axis=1)

    def cast(self, value: str, kind: int) -> str:
        return self.add("Cast", value, to=kind)

    def columns(self) -> list[tuple[str, Any]]:
        """Each column of each input, [n,1], with the input's type."""
        found = []
        for name, kind in self.inputs:
            width = kind.shape[1]
            for index in range(width):
                one = name if width == 1 else self.add("Gather", name, self.constant([index]), axis=1)
                found.append((one, kind))
        return found


def tensor(values: npt.ArrayLike) -> TensorProto:
    """An attribute that is a tensor."""
    return numpy_helper.from_array(np.asarray(values))
