"""What the service says of a model: its contract, its statistics."""

from __future__ import annotations

import json

from tensign._pb import open_inference_pb2 as pb
from tensign.datatypes import of_numpy
from tensign.metrics import Duration, Snapshot
from tensign.model import Model
from tensign.specs import ColumnSpec, Spec


def metadata(model: Model, versions: list[str]) -> pb.ModelMetadataResponse:
    """The signature, and in `parameters` what the protocol has no field for.

    A column is an input [-1], which may also come as [n,1]; its type, whether it may be left out, and the params with
    their defaults are in "signature", JSON as MLflow writes it.
    """
    response = pb.ModelMetadataResponse(name=model.name, versions=versions, platform=_platform(model))
    for tensors, specs in ((response.inputs, model.signature.inputs), (response.outputs, model.signature.outputs)):
        for spec in specs:
            tensors.add(name=spec.name, datatype=_datatype(spec), shape=spec.shape)
    if model.signature.params or any(
        isinstance(spec, ColumnSpec) for spec in (*model.signature.inputs, *model.signature.outputs)
    ):
        response.parameters["signature"].string_param = json.dumps(model.signature.document(), ensure_ascii=False)
    if model.plan.task:
        response.parameters["task"].string_param = model.plan.task
    response.parameters["activation"].string_param = model.plan.activation
    response.parameters["device"].string_param = model.device
    response.parameters["batch_sizes"].string_param = ",".join(map(str, model.buckets.rows))
    if model.plan.threshold is not None:
        response.parameters["threshold"].double_param = model.plan.threshold
    if model.plan.image and model.plan.preprocess:
        response.parameters["encoded_images"].string_param = model.plan.image
        response.parameters["preprocess_sha256"].string_param = model.plan.preprocess.digest
    if model.plan.labels:
        response.parameters["labels"].string_param = json.dumps(model.plan.labels, ensure_ascii=False)
    response.parameters["sha256"].string_param = model.digest
    response.parameters["max_request_rows"].int64_param = model.config.max_queue_rows
    return response


def configuration(model: Model) -> pb.ModelConfig:
    """What of Triton's model configuration has a meaning here."""
    config = pb.ModelConfig(name=model.name, platform=_platform(model), max_batch_size=model.config.max_queue_rows)
    config.dynamic_batching.preferred_batch_size.extend(model.buckets.rows)
    for spec in model.signature.inputs:
        optional = isinstance(spec, ColumnSpec) and not spec.required
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape[1:], optional=optional)
    for spec in model.signature.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape[1:])
    return config


def _platform(model: Model) -> str:
    """Triton's word for ONNX Runtime; a flavor of MLflow's for what a worker runs."""
    engine = model.plan.choice.engine
    return "onnxruntime_onnx" if engine == "onnx" else f"mlflow_{engine}"


def _datatype(spec: Spec) -> str:
    """Of a tensor or column on the wire; a datetime travels as ISO 8601."""
    return "BYTES" if spec.dtype.kind == "M" else of_numpy(spec.dtype).protocol


def _data_type(spec: Spec) -> str:
    """The same among DataType's names."""
    return f"TYPE_{_datatype(spec)}".replace("BYTES", "STRING")


def statistics(model: Model) -> pb.ModelStatistics:
    """Counts and times since the model was loaded."""
    seen = model.statistics.snapshot()
    message = pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=seen.last_inference_ms,
        inference_count=seen.rows,
        execution_count=seen.executions,
        inference_stats=_inference_statistics(seen),
    )
    for rows, times in sorted(seen.batches.items()):
        message.batch_stats.add(
            batch_size=rows,
            compute_input=_duration(times.compute_input),
            compute_infer=_duration(times.compute_infer),
            compute_output=_duration(times.compute_output),
        )
    return message


def _inference_statistics(seen: Snapshot) -> pb.InferStatistics:
    def total(stage: str) -> pb.StatisticDuration:
        stages = [getattr(times, stage) for times in seen.batches.values()]
        return pb.StatisticDuration(count=sum(s.count for s in stages), ns=sum(s.ns for s in stages))

    prepared = total("compute_input")
    prepared.ns += seen.preprocess.ns
    return pb.InferStatistics(
        success=_duration(seen.success),
        fail=_duration(seen.fail),
        queue=_duration(seen.queue),
        compute_input=prepared,
        compute_infer=total("compute_infer"),
        compute_output=total("compute_output"),
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)
