"""A torch network -> one ONNX file, any number of rows, the same bytes every time."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel

OPSET, IR_VERSION = 20, 10  # what ONNX Runtime 1.18 and later read
INPUT, OUTPUT = "image", "output"


def write(
    network: nn.Module,
    inputs: Mapping[str, tuple[Tensor, Mapping[int, str]]],
    outputs: Sequence[str],
    target: Path,
    inner: Sequence[str] = (),
) -> None:
    """Writes a network as one ONNX file, any number of rows, the same bytes every time.

    network: its forward takes `*inputs`; inputs: by name, in its order, an example of at least 2 rows and the names of other
    axes that stay open; outputs: what the first of the tensors that forward gives are called, inner: what the rest are, which
    become inner tensors. Raises UnsupportedModel for a network that the exporter cannot follow.
    """
    shapes = tuple(
        {0: torch.export.Dim("rows"), **{axis: torch.export.Dim(name) for axis, name in axes.items()}}
        for _, axes in inputs.values()
    )
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), _plain_tensors(network):
        warnings.simplefilter("ignore")  # the exporter's own, as its pages of half a graph are
        try:
            program = torch.onnx.export(
                network.eval(),
                tuple(given for given, _ in inputs.values()),
                input_names=list(inputs),
                output_names=[*outputs, *inner],
                dynamic_shapes=(shapes,),  # one entry: what *inputs takes
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # the exporter wraps whatever a network's forward does
            reason = str(error.__cause__ or error).strip().partition("\n")[0][:300]
            by_value = "data-dependent" in reason
            told = "; a graph has torch.where for what an if, a while or an int() decides by values" if by_value else ""
            raise UnsupportedModel(f"the network cannot be exported to ONNX: {reason}{told}") from error
    assert program is not None
    model = program.model_proto
    for value in model.graph.input:
        if length := value.type.tensor_type.shape.dim[0].dim_value:  # torch.onnx.export does not insist on the axes it is given
            raise UnsupportedModel(
                f"the network cannot be exported to ONNX for any number of rows: to torch.export it is made for {length}, as"
                " one that counts rows or parts them is, by int(x.shape[0]) or chunk; exporting it with torch.export says where"
            )
    model.ir_version = IR_VERSION
    for value in [value for value in model.graph.output if value.name in inner]:
        model.graph.output.remove(value)
        model.graph.value_info.append(value)
    for node in model.graph.node:  # the exporter's notes name files of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""
    save(model, target)


def save(model: onnx.ModelProto, target: Path) -> None:
    """Checks and writes it, the same bytes every time. Raises UnsupportedModel for what one file cannot hold."""
    if (size := model.ByteSize()) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise UnsupportedModel(f"the graph takes {size} bytes; one file holds less than {onnx.checker.MAXIMUM_PROTOBUF}")
    onnx.checker.check_model(model, full_check=True)
    target.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _plain_tensors(network: nn.Module) -> Iterator[None]:
    """Without the modules of fastai's unets that only change the class of a tensor, which the exporter cannot follow."""
    swapped = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child).__name__ == "ToTensorBase" and type(child).__module__ == "fastai.layers"
    ]
    for parent, name, _ in swapped:
        setattr(parent, name, nn.Identity())
    try:
        yield
    finally:
        for parent, name, child in swapped:
            setattr(parent, name, child)
