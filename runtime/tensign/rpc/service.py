"""The GRPCInferenceService: each RPC in a few lines over the Repository and its Models."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, NoReturn

import grpc

from tensign._pb import open_inference_pb2 as pb
from tensign.admission import Admission
from tensign.config import ServerConfig
from tensign.engines import cuda
from tensign.errors import InvalidInput, ModelNotFound, ModelNotReady, TensignError
from tensign.regions import Regions
from tensign.repository import Repository
from tensign.rpc.codec import MAX_ID
from tensign.rpc.description import configuration, metadata, statistics
from tensign.rpc.heading import Heading, Headings
from tensign.rpc.inference import Inference
from tensign.rpc.sharing import Sharing
from tensign.rpc.status import failed_answer, status_of, trailer_of
from tensign.rpc.stream import ORDER, Stream
from tensign.rpc.wire import Received, parse, received
from tensign.version import __version__

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
EXTENSIONS = ("classification", "model_configuration", "statistics", "encoded_images")

_ENVELOPE = 512  # bytes of an answer beside its tensors, its id and its model's name, generously

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService:
    """Methods are named as their RPCs."""

    def __init__(self, repository: Repository, config: ServerConfig, admission: Admission) -> None:
        self._repository = repository
        self._config = config
        self._admission = admission
        self._streams: set[Stream] = set()
        devices = {model.rows_on for model in repository if model.rows_on}
        self._regions = Regions(config.shared_memory, cuda.CudaRuntime if config.cuda_shared_memory else None, devices)
        self._sharing = Sharing(self._regions)
        self._headings = Headings(repository)

    def stop_reading(self) -> None:
        """Ends every stream behind the requests that were read."""
        for stream in self._streams:
            stream.end(ModelNotReady("the server is draining and reads no further requests"))

    def forget(self) -> None:
        """Gives the regions back that clients have registered."""
        self._regions.close()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a grpc.aio server needs, made from the service's own descriptor."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, Any]] = {}
        for method in SERVICE.methods:
            request, response = (getattr(pb, message.name) for message in (method.input_type, method.output_type))
            written = None if request is pb.ModelInferRequest else response.SerializeToString
            handle: grpc.RpcMethodHandler[bytes, Any]
            owner = self if hasattr(self, method.name) else self._sharing
            behaviour = getattr(owner, method.name)  # gets bytes, for grpc has no say in what status answers unparsable ones
            if method.client_streaming:
                handle = grpc.stream_stream_rpc_method_handler(behaviour, None, written)
            else:
                read = received if request is pb.ModelInferRequest else partial(parse, request)
                handle = grpc.unary_unary_rpc_method_handler(_guarded(read, behaviour), None, written)
            methods[method.name] = handle
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=not self._repository.lost)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._admission.ready and not self._repository.lost)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        try:
            model = self._repository.get(request.name, request.version)
        except ModelNotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._admission.ready and model.ready)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        extensions = (*EXTENSIONS, *self._sharing.extensions)
        return pb.ServerMetadataResponse(name="tensign", version=__version__, extensions=extensions)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        model = self._repository.get(request.name, request.version)
        message = metadata(model, self._repository.versions(model.name))
        message.parameters["max_message_bytes"].int64_param = self._config.max_message_bytes
        return message

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=configuration(self._repository.get(request.name, request.version)))

    async def ModelInfer(self, message: Received, context: Context) -> bytes:
        client = context.peer()
        heading = self._headings.of(message)
        with self._admission.admitted(message.size + self._most_shared(heading)):
            return (await (await self._inference(message, heading, context, client)).whole()).alone()

    async def ModelStreamInfer(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        # A connection, for behind a proxy many clients share an address. Asked for here: after the call that would crash.
        respond = partial(self._respond, context, context.peer())
        patience_s = self._config.timeout_s
        try:
            ordered = _is_ordered(context)
        except InvalidInput as error:
            await _refuse(context, error)
        stream = Stream(
            respond,
            self._admission.budget,
            patience_s=patience_s,
            expect=self._expected,
            beside=self._shared,
            ordered=ordered,
        )
        self._streams.add(stream)
        age_s = self._config.max_connection_age_s
        reason = ModelNotReady(f"the connection is {age_s:g} s old; connect again, perhaps to another server")
        # Between two answers; gRPC itself would cut the stream off.
        age = asyncio.get_running_loop().call_later(age_s, stream.end, reason) if age_s else None
        try:
            with self._admission.admitted():
                async with contextlib.aclosing(stream.answers(messages)) as answers:
                    async for answer in answers:
                        yield answer
        except Exception as error:
            await _refuse(context, error)
        finally:
            if age is not None:
                age.cancel()
            self._streams.discard(stream)

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        models = [self._repository.get(request.name, request.version)] if request.name else list(self._repository)
        told = [await asyncio.to_thread(statistics, model) for model in models]  # which may ask another process
        return pb.ModelStatisticsResponse(model_stats=told)

    async def _respond(self, context: Context, client: str, message: Received) -> AsyncGenerator[bytes, None]:
        """The answers to one request of a stream; an error is one of them, so that the stream lives on."""
        try:
            inference = await self._inference(message, self._headings.of(message), context, client)
            async for part in inference.parts():
                yield part.streamed()
        except Exception as error:
            failed = failed_answer(error)
            failed.infer_response.model_name = message.request.model_name[:MAX_ID]
            failed.infer_response.id = message.id[:MAX_ID]
            yield failed.SerializeToString()

    def _expected(self, message: Received) -> int:
        """Bytes of the answers to a request, 0 where the signature does not tell; never raises."""
        request = message.request
        try:
            model = self._repository.get(request.model_name, request.model_version)
        except ModelNotFound:
            return 0
        rows = max(request.inputs[0].shape[0], 0) if request.inputs and request.inputs[0].shape else 0
        outputs = [o for o in model.signature.outputs if -1 not in o.shape[1:]]
        envelopes = math.ceil(rows / model.largest_batch) * (len(message.id) + len(request.model_name) + _ENVELOPE)
        return envelopes + rows * sum(o.dtype.itemsize * math.prod(o.shape[1:]) for o in outputs) if outputs else 0

    def _shared(self, message: Received) -> int:
        """Bytes of regions that will be read for a request; never raises."""
        try:
            return self._most_shared(self._headings.of(message))
        except TensignError:  # which `_respond` tells
            return 0

    def _most_shared(self, heading: Heading) -> int:
        return min(heading.shared_bytes, self._config.max_message_bytes)

    def _inference(self, message: Received, heading: Heading, context: Context, client: str) -> Awaitable[Inference]:
        return Inference.of(
            message,
            heading,
            self._regions,
            limit=self._config.max_message_bytes,
            default_s=self._config.timeout_s,
            limit_s=context.time_remaining(),
            client=client,
        )


def _guarded(read: Callable[[bytes], object], behaviour: Any) -> Any:
    """A unary method on the bytes of a request, whose errors leave as their status."""

    async def call(content: bytes, context: Context) -> Any:
        try:
            return await behaviour(read(content), context)
        except Exception as error:
            await _refuse(context, error)

    return call


def _is_ordered(context: Context) -> bool:
    """Raises InvalidInput."""
    asked = dict(context.invocation_metadata() or ()).get(ORDER, "request")
    if asked not in ("request", "completed"):
        raise InvalidInput(f'metadata {ORDER}: wanted "request" or "completed", got {str(asked)[:64]!a}')
    return asked == "request"


async def _refuse(context: Context, error: Exception) -> NoReturn:
    """Ends a call with the status of an error, unless its deadline has ended it already."""
    code, text = status_of(error)
    try:
        await context.abort(code, text, trailing_metadata=trailer_of(error))
    except grpc.aio.InternalError:  # nobody is left to be told, which gRPC would log with every trace there is
        raise asyncio.CancelledError from None
