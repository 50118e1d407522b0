"""Columns in, columns out: the ONNX graph round an estimator. Numbers are doubles within, whatever the signature calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer

from tensign.coltypes import STRING
from tensign.errors import UnsupportedModel
from tensign.proof.parity import LOGITS
from tensign.signature import Signature
from tensign.specs import ColumnSpec, Spec
from tensign_converters.tables.guard import guarded
from tensign_converters.tables.nodes import Parts
from tensign_converters.tables.original import names
from tensign_converters.tables.sklearngraph import converted, in_floats, named, nested, reason

IR_VERSION = 10


def exported(estimator: Any, signature: Signature, method: str, refused: Mapping[str, Sequence[str]]) -> tuple[bytes, str]:
    """(the serialized model, "double" or "float": the precision of the estimator's last step).

    method: "predict" or "predict_proba", which gives the signature's outputs; refused: {kind of ODD: the columns in which the
    original takes no such value}, and nor does the graph. signature: one that an Original may have. The same
    estimator gives the same bytes. Where the signature promises labels alone, LOGITS is an inner tensor of it: the
    probabilities, float64 [n,classes].
    Raises UnsupportedModel, which names the class that has no counterpart.
    """
    while hasattr(estimator, "best_estimator_"):  # of a search
        estimator = estimator.best_estimator_
    if isinstance(getattr(estimator, "classes_", None), list):
        raise UnsupportedModel(f"{named(estimator)}: a classifier of several targets; wanted one of one")
    failed, whole = [], guarded(estimator)
    for precision, model in (("double", whole), ("float", in_floats(whole))):
        try:
            return _checked(_graph(model, signature, method, refused)), precision
        except UnsupportedModel:
            raise
        except Exception as error:  # skl2onnx, onnx and onnxruntime raise anything
            failed.append(reason(error))
    raise UnsupportedModel(f"no ONNX for {named(estimator)}: {failed[0]}")


def _graph(estimator: Any, signature: Signature, method: str, refused: Mapping[str, Sequence[str]]) -> onnx.ModelProto:
    parts = Parts("columns/")
    tensors, widths = _entry(parts, signature)
    _refuse(parts, tensors, refused)
    if 0 not in widths.values() and not any(isinstance(one, ColumnTransformer) for one in nested(estimator)):
        joined = parts.add("Concat", *tensors.values(), axis=1)
        tensors, widths = {"columns": joined}, {"columns": sum(widths.values())}
    body = converted(estimator, widths)
    for tensor, name in zip(tensors.values(), body.inputs, strict=True):
        parts.add("Identity", tensor, output=name)
    parts.nodes += body.nodes
    parts.constants += body.constants
    _exit(parts, signature, body.outputs[method == "predict_proba"])
    inner = []
    if method == "predict" and hasattr(estimator, "predict_proba") and LOGITS not in names(signature):
        parts.add("Cast", body.outputs[1], output=LOGITS, to=TensorProto.DOUBLE)
        inner.append(helper.make_tensor_value_info(LOGITS, TensorProto.DOUBLE, ["rows", None]))
    graph = helper.make_graph(parts.nodes, "model", parts.inputs, parts.outputs, parts.constants, value_info=inner)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(body.versions.items())],
        ir_version=IR_VERSION,
        producer_name=body.producer,
    )


def _entry(parts: Parts, signature: Signature) -> tuple[dict[str, str], dict[str, int]]:
    """({column: its tensor}, {column: its width, 0 for text})."""
    tensors, widths = {}, {}
    for spec in signature.inputs:
        widths[spec.name] = width = _width(spec)
        kind = _element(spec)
        parts.inputs.append(helper.make_tensor_value_info(spec.name, kind, ["rows", width or 1]))
        tensors[spec.name] = parts.cast(spec.name, TensorProto.DOUBLE) if width else spec.name
    return tensors, widths


def _width(spec: Spec) -> int:
    if isinstance(spec, ColumnSpec):
        return 0 if spec.type is STRING else 1
    return spec.shape[1]


def _element(spec: Spec) -> int:
    return TensorProto.STRING if spec.dtype == object else helper.np_dtype_to_tensor_dtype(spec.dtype)


def _refuse(parts: Parts, tensors: dict[str, str], refused: Mapping[str, Sequence[str]]) -> None:
    """Makes a run fail where a column holds what the original refuses."""
    for kind, columns in refused.items():
        if not columns:
            continue
        checked = parts.add("Concat", *(tensors[name] for name in columns), axis=1)
        tensors[columns[0]] = parts.refusing(tensors[columns[0]], kind, checked)


def _exit(parts: Parts, signature: Signature, answer: str) -> None:
    pieces = [answer]
    specs: Sequence[Spec] = signature.outputs
    if len(specs) > 1:
        pieces = [f"columns/part{index}" for index in range(len(specs))]
        parts.nodes.append(helper.make_node("Split", [answer], pieces, name="Split", axis=1, num_outputs=len(pieces)))
    flat = parts.constant([-1])
    for piece, spec in zip(pieces, specs, strict=True):
        shaped = parts.add("Reshape", piece, flat) if len(spec.shape) == 1 else piece
        if spec.dtype == object:
            parts.add("Identity", shaped, output=spec.name)
        else:
            parts.add("Cast", shaped, output=spec.name, to=_element(spec))
        lengths = ["rows", *(None if axis == -1 else axis for axis in spec.shape[1:])]
        parts.outputs.append(helper.make_tensor_value_info(spec.name, _element(spec), lengths))


def _checked(model: onnx.ModelProto) -> bytes:
    """Raises whatever onnx and ONNX Runtime find wrong."""
    import onnxruntime

    if (size := model.ByteSize()) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise UnsupportedModel(f"the graph takes {size} bytes; one file holds less than {onnx.checker.MAXIMUM_PROTOBUF}")
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return content
