"""Shared memory over gRPC, as tritonclient uses it: tensors in it and out of it, and every refusal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

import hostile
from conftest import CPU
from hostile import MODELS
from tensign._pb import open_inference_pb2 as pb
from tensign.child import served
from tensign.config import ModelConfig, ServerConfig
from tensign.errors import InvalidInput
from tensign.model import Model
from tensign.regions import FOLDER, Regions, SystemRegion
from tensign.repository import Repository
from tensign.rpc.answers import encode_response
from tensign.rpc.codec import encode_request
from tensign.rpc.heading import Heading
from tensign.rpc.regionfields import Target, output_spans
from tensign.testing import serving

OURS = f"tensign-test-{os.getpid()}-"
ON = ServerConfig(grpc_port=0, drain_s=5.0, shared_memory=(f"{OURS}*",))
INFER, STREAM = (f"/inference.GRPCInferenceService/{method}" for method in ("ModelInfer", "ModelStreamInfer"))
SIZE = 3 * 4 * 5 * 3  # bytes of three rows of "pixels"
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
MEANS = PIXELS.mean((1, 2), dtype=np.float32)

Array = npt.NDArray[Any]


@dataclass
class House:
    """A server that shares memory, and tritonclient connected to it."""

    address: str
    client: Any

    @contextmanager
    def region(self, name: str, size: int, *contents: Array) -> Iterator[Any]:
        """A registered region of tritonclient's, with those contents."""
        from tritonclient.utils import shared_memory

        region = shared_memory.create_shared_memory_region(name, OURS + name, size)
        shared_memory.set_shared_memory_region(region, list(contents))
        self.client.register_system_shared_memory(name, OURS + name, size)
        try:
            yield region
        finally:
            self.client.unregister_system_shared_memory(name)
            shared_memory.destroy_shared_memory_region(region)

    def refused(self, request: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
        with grpc.insecure_channel(self.address) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(INFER, bytes, bytes)(request.SerializeToString(), timeout=30)
        return refused.value.code(), str(refused.value.details())


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    import tritonclient.grpc as triton

    folder = tmp_path_factory.mktemp("served")
    models = [
        Model.load(hostile.written(folder / name, MODELS[name]), ModelConfig(device="cpu", max_batch_size=4), name=name)
        for name in ("pixels", "pair", "picture")
    ]
    with serving(*models, config=ON) as address, triton.InferenceServerClient(address) as client:
        yield House(address, client)


def shared(name: str, shape: list[int], datatype: str, region: str, size: int, offset: int = 0) -> Any:
    import tritonclient.grpc as triton

    tensor = triton.InferInput(name, shape, datatype)
    tensor.set_shared_memory(region, size, offset)
    return tensor


def contents(region: Any, shape: list[int], offset: int = 0) -> Array:
    from tritonclient.utils import shared_memory

    return np.array(shared_memory.get_contents_as_numpy(region, np.float32, shape, offset))


def wanted(region: str, size: int, offset: int = 0) -> Any:
    import tritonclient.grpc as triton

    output = triton.InferRequestedOutput("output")
    output.set_shared_memory(region, size, offset)
    return output


def test_tensors_go_in_and_out_by_regions(house: House) -> None:
    with house.region("in", SIZE, PIXELS), house.region("out", 100) as out:
        image = shared("image", [3, 4, 5, 3], "UINT8", "in", SIZE)
        raw = house.client.infer("pixels", [image]).as_numpy("output")
        np.testing.assert_allclose(raw, MEANS, rtol=1e-6)
        answer = house.client.infer("pixels", [image], outputs=[wanted("out", 50, 40)], request_id="7")
        output, response = answer.get_output("output"), answer.get_response()
        assert (output.datatype, list(output.shape), response.id) == ("FP32", [3, 3], "7")
        assert list(response.raw_output_contents) == [b""]
        said = {key: value.int64_param or value.string_param for key, value in output.parameters.items()}
        assert said == {"shared_memory_region": "out", "shared_memory_byte_size": 36, "shared_memory_offset": 40}
        np.testing.assert_array_equal(contents(out, [3, 3], 40), raw)


def test_some_inputs_in_regions_and_some_raw(house: House) -> None:
    import tritonclient.grpc as triton

    one, other = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 10, np.float32)
    with house.region("both", 100, one, other):
        for first, second in (("a", "b"), ("b", "a")):
            raw = triton.InferInput(first, [2, 3], "FP32")
            raw.set_data_from_numpy(other)
            tensor = shared(second, [2, 3], "FP32", "both", 24)
            for inputs in ([raw, tensor], [tensor, raw]):
                np.testing.assert_array_equal(house.client.infer("pair", inputs).as_numpy("output"), one + other)
        both = [shared("a", [2, 3], "FP32", "both", 24), shared("b", [2, 3], "FP32", "both", 24, 24)]
        np.testing.assert_array_equal(house.client.infer("pair", both).as_numpy("output"), one + other)


def test_pictures_in_a_region(house: House, pictures: list[Path]) -> None:
    from tritonclient.utils import serialize_byte_tensor

    files = np.array([picture.read_bytes() for picture in pictures[:2]], object)
    serialized = serialize_byte_tensor(files)
    size = len(serialized.item())
    raw = encode_request("picture", {"image": files}).SerializeToString()
    with grpc.insecure_channel(house.address) as channel:
        answer = channel.unary_unary(INFER, bytes, pb.ModelInferResponse.FromString)(raw, timeout=30)
    with house.region("files", size + 9, serialized):
        tensor = shared("image", [2], "BYTES", "files", size)
        found = house.client.infer("picture", [tensor]).as_numpy("output")
    assert found.tobytes() == answer.raw_output_contents[0]


def test_a_stream_by_regions(house: House) -> None:
    from tritonclient.utils import shared_memory

    answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    house.client.start_stream(lambda result, error: answers.put((result, error)))
    try:
        with house.region("in", SIZE) as region, house.region("out", 36) as out:
            for number in range(5):
                shared_memory.set_shared_memory_region(region, [np.full((3, 4, 5, 3), number, np.uint8)])
                image = shared("image", [3, 4, 5, 3], "UINT8", "in", SIZE if number != 3 else SIZE - 1)
                house.client.async_stream_infer("pixels", [image], outputs=[wanted("out", 36)], request_id=str(number))
                result, error = answers.get(timeout=30)
                if number == 3:
                    assert f"takes {SIZE} bytes, got {SIZE - 1}" in str(error)
                else:
                    assert error is None and result.get_response().id == str(number)
                    np.testing.assert_allclose(contents(out, [3, 3]), number)
    finally:
        house.client.stop_stream()


def test_parts_of_an_answer_lie_behind_each_other(house: House) -> None:
    rows = np.random.default_rng(1).integers(0, 256, (19, 4, 5, 3), np.uint8)
    request = encode_request("pixels", {"image": rows})
    asked = request.outputs.add(name="output").parameters
    asked["shared_memory_region"].string_param = "out"
    asked["shared_memory_byte_size"].int64_param = 19 * 12
    asked["shared_memory_offset"].int64_param = 8
    with house.region("out", 300) as out, grpc.insecure_channel(house.address) as channel:
        stream = channel.stream_stream(STREAM, bytes, pb.ModelStreamInferResponse.FromString)
        places = []
        for answer in stream(iter([request.SerializeToString()]), timeout=30):
            assert not answer.error_message
            (tensor,) = answer.infer_response.outputs
            said, first = tensor.parameters, answer.infer_response.parameters["first_row"].int64_param
            assert said["shared_memory_offset"].int64_param == 8 + 12 * first
            assert said["shared_memory_byte_size"].int64_param == 12 * tensor.shape[0]
            places.append(first)
        assert len(places) > 1
        np.testing.assert_allclose(contents(out, [19, 3], 8), rows.mean((1, 2)), rtol=1e-6)


def test_many_requests_at_once_over_one_region(house: House) -> None:
    rows = np.random.default_rng(2).integers(0, 256, (16, 4, 5, 3), np.uint8)
    with house.region("in", 16 * 60, rows), house.region("out", 16 * 12) as out, ThreadPoolExecutor(8) as pool:

        def infer(row: int) -> Any:
            image = shared("image", [1, 4, 5, 3], "UINT8", "in", 60, 60 * row)
            return house.client.infer("pixels", [image], outputs=[wanted("out", 12, 12 * row)])

        list(pool.map(infer, range(16)))
        np.testing.assert_allclose(contents(out, [16, 3]), rows.mean((1, 2)), rtol=1e-6)
        image = shared("image", [16, 4, 5, 3], "UINT8", "in", 16 * 60)
        for answer in pool.map(lambda _: house.client.infer("pixels", [image]).as_numpy("output"), range(16)):
            np.testing.assert_allclose(answer, rows.mean((1, 2)), rtol=1e-6)


def test_status_tells_what_is_registered(house: House) -> None:
    house.client.unregister_system_shared_memory()
    with house.region("a", 10), house.region("b", 20):
        told = house.client.get_system_shared_memory_status().regions
        assert {name: (one.name, one.key, one.offset, one.byte_size) for name, one in told.items()} == {
            "a": ("a", f"{OURS}a", 0, 10),
            "b": ("b", f"{OURS}b", 0, 20),
        }
        assert list(house.client.get_system_shared_memory_status("b").regions) == ["b"]
        house.client.unregister_system_shared_memory("nobody's")
        house.client.unregister_system_shared_memory()
        assert not house.client.get_system_shared_memory_status().regions
        with pytest.raises(Exception, match=r'INVALID_ARGUMENT.*region "b" is not registered'):
            house.client.get_system_shared_memory_status("b")
    assert {"system_shared_memory", "statistics"} <= set(house.client.get_server_metadata().extensions)
    assert "cuda_shared_memory" not in house.client.get_server_metadata().extensions


@pytest.mark.parametrize(
    ("key", "offset", "size", "told"),
    [
        ("elsewhere", 0, 1, "PERMISSION_DENIED.*is not among those that --shared-memory"),
        ("/../etc/passwd", 0, 1, "INVALID_ARGUMENT.*expected the plain name"),
        (f"{OURS}missing", 0, 1, "INVALID_ARGUMENT.*cannot be opened: No such file"),
        (f"{OURS}there", 5, 6, "INVALID_ARGUMENT.*6 bytes from 5 on end behind shared memory .*, of 10"),
        (f"{OURS}there", 2**63, 2**63, "INVALID_ARGUMENT.*end behind"),
        (f"{OURS}there", 0, 0, "INVALID_ARGUMENT.*at least 1 byte"),
    ],
)
def test_what_cannot_be_registered(house: House, key: str, offset: int, size: int, told: str) -> None:
    file = Path(FOLDER, f"{OURS}there")
    file.write_bytes(bytes(10))
    try:
        with pytest.raises(Exception, match=f"(?s){told}"):
            house.client.register_system_shared_memory("name", key, size, offset)
    finally:
        file.unlink()


def named(shape: list[int] | None = None, datatype: str = "UINT8", **parameters: Any) -> pb.ModelInferRequest:
    """A request whose input lies in region "in", but for what is said otherwise; None is left out."""
    request = pb.ModelInferRequest(model_name="pixels")
    tensor = request.inputs.add(name="image", datatype=datatype, shape=shape or [3, 4, 5, 3])
    for key, value in {"region": "in", "byte_size": SIZE, **parameters}.items():
        if value is not None:
            kind = {str: "string_param", int: "int64_param", bool: "bool_param"}[type(value)]
            setattr(tensor.parameters[f"shared_memory_{key}"], kind, value)
    return request


def with_raw(request: pb.ModelInferRequest) -> pb.ModelInferRequest:
    request.raw_input_contents.append(bytes(SIZE))
    return request


def with_contents(request: pb.ModelInferRequest) -> pb.ModelInferRequest:
    request.inputs[0].contents.uint_contents.extend([1] * SIZE)
    return request


def asking(size: int = 36, region: str = "in", offset: int = 0, classes: int = 0) -> pb.ModelInferRequest:
    request = named()
    output = request.outputs.add(name="output")
    output.parameters["shared_memory_region"].string_param = region
    output.parameters["shared_memory_byte_size"].int64_param = size
    output.parameters["shared_memory_offset"].int64_param = offset
    if classes:
        output.parameters["classification"].int64_param = classes
    return request


BIG = 2**63 - 1


@pytest.mark.parametrize(
    ("request_of", "told"),
    [
        (lambda: named(region="other"), 'input "image": region "other" is not registered'),
        (lambda: named(region=""), 'input "image": region "" is not registered'),
        (lambda: named(region=7), "shared_memory_region: wanted the name of a region"),
        (lambda: named(byte_size=None), "shared_memory_byte_size is missing"),
        (lambda: named(byte_size="9"), "shared_memory_byte_size: wanted an int64"),
        (lambda: named(byte_size=-1), "shared_memory_byte_size: wanted an int64 of bytes, 0 or more"),
        (lambda: named(byte_size=0), f"takes {SIZE} bytes, got 0"),
        (lambda: named(byte_size=SIZE - 1), f"takes {SIZE} bytes, got {SIZE - 1}"),
        (lambda: named(byte_size=SIZE + 1), f'{SIZE + 1} bytes from 0 on end behind region "in", which has {SIZE}'),
        (lambda: named(byte_size=BIG), f'{BIG} bytes from 0 on end behind region "in"'),
        (lambda: named(offset=1), f"{SIZE} bytes from 1 on end behind"),
        (lambda: named(offset=-1), "shared_memory_offset: wanted an int64 of bytes"),
        (lambda: named(offset=True), "shared_memory_offset: wanted an int64"),
        (lambda: named(offset=BIG), f"{SIZE} bytes from {BIG} on end behind"),
        (lambda: named(offset=BIG, byte_size=BIG), "on end behind"),
        (lambda: named([1, 4, 5, 3]), f"UINT8 [1, 4, 5, 3] takes 60 bytes, got {SIZE}"),
        (lambda: named([3, 4, 5], "FP32"), "takes 240 bytes"),
        (lambda: named([1], "BYTES"), "BYTES: element 0 claims"),
        (lambda: named([1, 9, 20], "UINT8"), "expected uint8 [-1,4,5,3], got uint8 [1,9,20]"),
        (lambda: with_raw(named()), "expected one for each of the 0 inputs without a region, got 1"),
        (lambda: with_contents(named()), "has contents besides raw_input_contents"),
        (lambda: asking(35), 'output "output" takes 36 bytes, shared_memory_byte_size is 35'),
        (lambda: asking(0), 'output "output" takes 36 bytes, shared_memory_byte_size is 0'),
        (lambda: asking(-1), 'output "output": shared_memory_byte_size: wanted'),
        (lambda: asking(SIZE, offset=1), f'output "output": {SIZE} bytes from 1 on end behind region "in"'),
        (lambda: asking(offset=BIG), "on end behind"),
        (lambda: asking(region="other"), 'output "output": region "other" is not registered'),
        (lambda: asking(classes=1), "classification and shared_memory_region; ask for one of them"),
    ],
)
def test_what_a_request_is_refused_for(house: House, request_of: Callable[[], pb.ModelInferRequest], told: str) -> None:
    pixels = np.full((3, 4, 5, 3), 200, np.uint8)
    with house.region("in", SIZE, pixels):
        code, text = house.refused(request_of())
        assert code is grpc.StatusCode.INVALID_ARGUMENT and told in text, text
        image = shared("image", [3, 4, 5, 3], "UINT8", "in", SIZE)
        np.testing.assert_allclose(house.client.infer("pixels", [image]).as_numpy("output"), 200)  # nothing was written


def test_a_region_that_is_cut_off_while_it_is_registered(house: House) -> None:
    with house.region("in", SIZE, PIXELS):
        os.truncate(Path(FOLDER, f"{OURS}in"), 100)
        code, text = house.refused(named())
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "was cut off, 100 of 180 bytes are left" in text
        assert house.client.is_server_live()


def test_a_region_that_is_unregistered_takes_the_answers_of_those_who_had_it() -> None:
    file = Path(FOLDER, f"{OURS}held")
    file.write_bytes(bytes(36))
    try:
        regions = Regions((file.name,))
        regions.register("in", file.name, 0, 36)
        request = asking()
        spans = output_spans(request)
        placed = {name: Target(span, regions) for name, span in spans.items()}
        regions.unregister(SystemRegion)
        encode_response(request, "1", {"output": MEANS}, placed=placed)
        assert file.read_bytes() == MEANS.tobytes()
        with pytest.raises(InvalidInput, match="not registered"):
            Target(spans["output"], regions)
    finally:
        file.unlink()


def test_what_a_request_reads_counts_as_held(tmp_path: Path) -> None:
    model = Model.load(hostile.written(tmp_path / "pixels", MODELS["pixels"]), CPU, name="pixels")
    try:
        repository = Repository([model])
        assert Heading.of(named(), repository).shared_bytes == SIZE
        assert Heading.of(named(byte_size=BIG), repository).shared_bytes == BIG
        assert Heading.of(encode_request("pixels", {"image": PIXELS}), repository).shared_bytes == 0
        for wrong in (-5, None):
            with pytest.raises(InvalidInput, match="shared_memory_byte_size"):
                Heading.of(named(byte_size=wrong), repository)
    finally:
        model.close()


def test_one_request_does_not_read_without_end(tmp_path: Path) -> None:
    model = Model.load(hostile.written(tmp_path / "pixels", MODELS["pixels"]), CPU, name="pixels")
    import tritonclient.grpc as triton

    small = ServerConfig(grpc_port=0, drain_s=5.0, shared_memory=(f"{OURS}*",), max_message_bytes=1000)
    with serving(model, config=small) as address, triton.InferenceServerClient(address) as client:
        house = House(address, client)
        with house.region("in", SIZE, PIXELS):
            request = named()
            for number in range(5):
                request.inputs.add(name=f"again{number}").CopyFrom(request.inputs[0])
            code, text = house.refused(request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "inputs take 1080 bytes of regions, 1000 are the most that one request may" in text


def test_where_it_is_off_nothing_is_shared(mean_address: str) -> None:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(mean_address) as client:

        def refused(option: str, call: Callable[..., Any], *arguments: Any) -> None:
            told = f"UNIMPLEMENTED.*the operator switches it on with tensign serve {option}"
            with pytest.raises(triton.InferenceServerException, match=told):
                call(*arguments)

        tensor = shared("input-0", [3, 4, 5, 3], "UINT8", "in", SIZE)
        refused("--shared-memory NAMES", client.register_system_shared_memory, "a", "a", 1)
        refused("--shared-memory NAMES", client.get_system_shared_memory_status)
        refused("--shared-memory NAMES", client.unregister_system_shared_memory)
        refused("--shared-memory NAMES", client.infer, "mean", [tensor])
        refused("--cuda-shared-memory", client.register_cuda_shared_memory, "a", b"", 0, 1)
        refused("--cuda-shared-memory", client.get_cuda_shared_memory_status)
        refused("--cuda-shared-memory", client.unregister_cuda_shared_memory)
        assert not [name for name in client.get_server_metadata().extensions if "shared_memory" in name]


def test_two_processes_share_memory(mean_model: Path) -> None:
    import tritonclient.grpc as triton

    arguments = ("--device", "cpu", "--name", "mean", "--shared-memory", f"nobody, {OURS}*")
    with served(mean_model, *arguments) as address, triton.InferenceServerClient(address) as client:
        house = House(address, client)
        with house.region("in", SIZE, PIXELS), house.region("out", 36) as out:
            output = triton.InferRequestedOutput("output-0")
            output.set_shared_memory("out", 36)
            client.infer("mean", [shared("input-0", [3, 4, 5, 3], "UINT8", "in", SIZE)], outputs=[output])
            np.testing.assert_allclose(contents(out, [3, 3]), MEANS, rtol=1e-6)
