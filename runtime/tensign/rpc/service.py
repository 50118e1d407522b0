"""The GRPCInferenceService: each RPC in a few lines over the Repository and its Models."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from tensign._pb import open_inference_pb2 as pb
from tensign.datatypes import of_numpy
from tensign.errors import DeadlineExceeded, ModelNotFound, ModelNotReady, QueueFull
from tensign.metrics import Duration, Snapshot
from tensign.model import Model
from tensign.repository import Repository
from tensign.rpc.codec import MAX_ID, decode_request, encode_response, parse, requested_outputs
from tensign.rpc.status import status_of
from tensign.signature import MAX_RANK
from tensign.version import __version__

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
EXTENSIONS = ("classification", "statistics", "encoded_images")

# Requests of one stream that may be on their way at once; a reader that stops reading stops its own stream here.
STREAM_WINDOW = 64

_FEW_ELEMENTS = 1024

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService:
    """Methods are named as their RPCs."""

    def __init__(self, repository: Repository, *, timeout_s: float) -> None:
        self._repository = repository
        self._timeout_s = timeout_s
        self.ready = True
        self.active = 0
        self._readers: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Says not ready, refuses new calls with UNAVAILABLE, stops reading streams, waits until what was taken is answered."""
        self.ready = False
        for reader in self._readers:
            reader.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        """One unary call or one stream in flight."""
        if not self.ready:
            raise ModelNotReady("the server is draining and takes no new requests")
        self.active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.active -= 1
            if not self.active:
                self._idle.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server needs, made from the service's own descriptor."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, Any]] = {}
        for method in SERVICE.methods:
            request, response = (getattr(pb, message.name) for message in (method.input_type, method.output_type))
            handle: grpc.RpcMethodHandler[bytes, Any]
            behaviour = getattr(self, method.name)  # gets bytes, for grpc has no say in what status answers unparsable ones
            if method.client_streaming:
                handle = grpc.stream_stream_rpc_method_handler(behaviour, None, response.SerializeToString)
            else:
                handle = grpc.unary_unary_rpc_method_handler(_guarded(request, behaviour), None, response.SerializeToString)
            methods[method.name] = handle
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        try:
            self._repository.get(request.name, request.version)
        except ModelNotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.ready)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="tensign", version=__version__, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        model = self._repository.get(request.name, request.version)
        response = pb.ModelMetadataResponse(
            name=model.name, versions=self._repository.versions(model.name), platform="onnxruntime_onnx"
        )
        for tensors, specs in ((response.inputs, model.signature.inputs), (response.outputs, model.signature.outputs)):
            for spec in specs:
                tensors.add(name=spec.name, datatype=of_numpy(spec.dtype).protocol, shape=spec.shape)
        response.parameters["activation"].string_param = model.plan.activation
        response.parameters["device"].string_param = model.device
        response.parameters["batch_sizes"].string_param = ",".join(map(str, model.buckets.rows))
        if model.plan.threshold is not None:
            response.parameters["threshold"].double_param = model.plan.threshold
        if model.plan.image and model.plan.preprocess:
            response.parameters["encoded_images"].string_param = model.plan.image
            response.parameters["preprocess_sha256"].string_param = model.plan.preprocess.digest
        return response

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        with self._admitted():
            return await self._infer(request, context)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        try:
            with self._admitted():
                async with contextlib.aclosing(self._answers(requests, context)) as answers:
                    async for answer in answers:
                        yield answer
        except Exception as error:
            await context.abort(*status_of(error))

    async def _answers(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Reads ahead of the answers by at most a window, so that requests of one stream share batches.

        A draining server stops reading; what was read is answered.
        """
        owed: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue()
        window = asyncio.Semaphore(STREAM_WINDOW)

        async def read() -> None:
            while True:
                await window.acquire()  # before reading, so that what was read is always answered
                try:
                    request = parse(pb.ModelInferRequest, await anext(requests))
                except StopAsyncIteration:
                    return
                owed.put_nowait(asyncio.create_task(self._infer_part(request, context)))

        reader = asyncio.create_task(read())
        reader.add_done_callback(lambda _: owed.put_nowait(None))
        self._readers.add(reader)
        try:
            while (answer := await owed.get()) is not None:
                yield await answer
                window.release()
            if reader.cancelled():
                raise ModelNotReady("the server is draining and reads no further requests")
            reader.result()  # raises what reading raised
        finally:
            self._readers.discard(reader)
            reader.cancel()
            while not owed.empty():
                if (left := owed.get_nowait()) is not None:
                    left.cancel()

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        models = [self._repository.get(request.name, request.version)] if request.name else list(self._repository)
        return pb.ModelStatisticsResponse(model_stats=[_statistics(model) for model in models])

    async def _infer_part(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelStreamInferResponse:
        try:
            return pb.ModelStreamInferResponse(infer_response=await self._infer(request, context, patient=True))
        except Exception as error:
            _, text = status_of(error)
            failed = pb.ModelInferResponse(model_name=request.model_name[:MAX_ID], id=request.id[:MAX_ID])
            return pb.ModelStreamInferResponse(error_message=text, infer_response=failed)

    async def _infer(self, request: pb.ModelInferRequest, context: Context, *, patient: bool = False) -> pb.ModelInferResponse:
        """patient: wait for room in a full queue, which holds back the stream; a unary caller is told at once."""
        model = self._repository.get(request.model_name, request.model_version)
        wanted = requested_outputs(request, (spec.name for spec in model.signature.outputs))
        remaining = context.time_remaining()
        timeout_s = self._timeout_s if remaining is None else remaining
        deadline = time.monotonic() + timeout_s
        arrays = await asyncio.to_thread(decode_request, request) if _is_slow(request) else decode_request(request)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        future = model.submit(arrays, deadline=deadline)
                        break
                    except QueueFull:
                        if not patient:
                            raise
                        await asyncio.wrap_future(model.room(len(next(iter(arrays.values())))))
                outputs = await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {timeout_s:.3g} s") from None
        if any(wanted.values()):  # sorting and writing many classes takes milliseconds
            return await asyncio.to_thread(encode_response, request, model.version, outputs, model.plan.labels)
        return encode_response(request, model.version, outputs, model.plan.labels)


def _is_slow(request: pb.ModelInferRequest) -> bool:
    """True where decoding goes element by element, which would hold up the event loop; raw tensors are views."""
    if not request.raw_input_contents:
        return True
    return any(tensor.datatype == "BYTES" and math.prod(tensor.shape[:MAX_RANK]) > _FEW_ELEMENTS for tensor in request.inputs)


def _guarded(request: type[Message], behaviour: Any) -> Any:
    """A unary method on the bytes of a request, whose errors leave as their status."""

    async def call(content: bytes, context: Context) -> Any:
        try:
            return await behaviour(parse(request, content), context)
        except Exception as error:
            await context.abort(*status_of(error))

    return call


def _statistics(model: Model) -> pb.ModelStatistics:
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
