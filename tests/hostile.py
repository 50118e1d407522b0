"""Every input that might harm, as data: what it is, what answers it, what the answer says. tests/test_hostile.py sends them.

A line per case. What fuzzing or a user finds is added here.
"""
# ruff: noqa: E501

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import yaml
from onnx import TensorProto, helper

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import ModelNotFound, TensignError, UnsupportedModel
from tensign.rpc.codec import encode_request

PAYLOAD = b"do-not-echo"  # stands in contents, and in no answer

Array = npt.NDArray[Any]
Request = pb.ModelInferRequest


@dataclass(frozen=True)
class Served:
    """A model that is served to the cases, with what it answers."""

    inputs: dict[str, tuple[str, list[int]]]
    answer: Callable[..., Array]
    outputs: int = 3
    preprocess: dict[str, Any] | None = None


RESIZE = {"op": "resize", "height": 8, "width": 8}
REGION = "shared"  # of 120 bytes, the rows of `good(2)`
MODELS = {
    "pixels": Served({"image": ("uint8", [-1, 4, 5, 3])}, lambda image: image.mean((1, 2), dtype=np.float32)),
    "pair": Served({"a": ("float32", [-1, 3]), "b": ("float32", [-1, 3])}, lambda a, b: a + b),
    "picture": Served(
        {"image": ("uint8", [-1, 8, 8, 3])},
        lambda image: image.mean((1, 2), dtype=np.float32),
        preprocess={"version": 1, "steps": [RESIZE]},
    ),
    "upright": Served(
        {"image": ("uint8", [-1, 8, 8, 3])},
        lambda image: image.mean((1, 2), dtype=np.float32),
        preprocess={"version": 1, "steps": [RESIZE], "exif_orientation": "apply"},
    ),
}


@dataclass(frozen=True)
class Case:
    """A message and the status it gets, in gRPC's words; "OK" where it is answered, with `expected` if that is known.

    says: words of the text. ends_stream: on a stream it ends the call instead of getting an error_message of its own.
    in_parts: on a stream it is answered all the same, in several parts.
    """

    name: str
    message: Callable[[], bytes]
    status: str
    says: tuple[str, ...] = ()
    expected: Callable[[], Array] | None = None
    ends_stream: bool = False
    in_parts: bool = False


# requests


def raw(name: str, datatype: str, shape: list[int], content: bytes, model: str = "pixels", **more: Any) -> bytes:
    request = Request(model_name=model, raw_input_contents=[content], **more)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request.SerializeToString()


def typed(datatype: str, shape: list[int], name: str = "image", model: str = "pixels", **contents: list[Any]) -> bytes:
    request = Request(model_name=model)
    request.inputs.add(name=name, datatype=datatype, shape=shape, contents=pb.InferTensorContents(**contents))
    return request.SerializeToString()


def arrays(model: str, **named: Array) -> bytes:
    return encode_request(model, named).SerializeToString()


def changed(message: bytes, change: Callable[[pb.ModelInferRequest], object]) -> bytes:
    request = Request.FromString(message)
    change(request)
    return request.SerializeToString()


def asking(**parameter: Any) -> bytes:
    def ask(request: pb.ModelInferRequest) -> None:
        request.outputs.add(name="output").parameters["classification"].CopyFrom(pb.InferParameter(**parameter))

    return changed(good(), ask)


def timing(**parameter: Any) -> bytes:
    return changed(good(), lambda request: request.parameters["timeout"].CopyFrom(pb.InferParameter(**parameter)))


def by_region(shape: tuple[int, ...] = (2, 4, 5, 3), datatype: str = "UINT8", times: int = 1, **parameters: Any) -> bytes:
    """The rows of `good(2)`, which lie in a region of the server's; `times`: as so many inputs."""
    request = Request(model_name="pixels")
    for number in range(times):
        tensor = request.inputs.add(name="image" if not number else str(number), datatype=datatype, shape=shape)
        for key, value in {"region": REGION, "byte_size": 120, **parameters}.items():
            kind = "string_param" if isinstance(value, str) else "int64_param"
            setattr(tensor.parameters[f"shared_memory_{key}"], kind, value)
    return request.SerializeToString()


def good(rows: int = 2) -> bytes:
    return arrays("pixels", image=pixels(rows))


def pixels(rows: int = 2) -> Array:
    return np.random.default_rng(rows).integers(0, 256, (rows, 4, 5, 3), np.uint8)


THREE = np.array([[1, 2, 3]], np.float32)
ODD = np.array([[np.nan, np.inf, -np.inf], [1, 2, 3]], np.float32)
IMAGE = 'input "image": '
INVALID = "INVALID_ARGUMENT"
SENT = PAYLOAD * 6  # 66 bytes, of 60

REQUESTS = [
    # shared memory
    Case("by region", by_region, "OK", expected=lambda: MODELS["pixels"].answer(pixels())),
    Case("another region", lambda: by_region(region="x" * 100_000), INVALID, (IMAGE, "is not registered")),
    Case("path as region", lambda: by_region(region="../../etc/passwd"), INVALID, (IMAGE, "is not registered")),
    Case("beyond the region", lambda: by_region((3, 4, 5, 3), byte_size=180), INVALID, (IMAGE, "180 bytes from 0 on end behind", "which has 120")),
    Case("offset overflow", lambda: by_region(offset=(1 << 63) - 1), INVALID, (IMAGE, "end behind")),
    Case("size overflow", lambda: by_region(byte_size=(1 << 63) - 1, offset=1), INVALID, (IMAGE, "end behind")),
    Case("negative offset", lambda: by_region(offset=-1), INVALID, (IMAGE, "0 or more")),
    Case("negative size", lambda: by_region(byte_size=-(1 << 63)), INVALID, (IMAGE, "0 or more")),
    Case("no bytes of a region", lambda: by_region((0, 4, 5, 3), byte_size=0), INVALID, (IMAGE, "expected at least 1 row, got 0")),
    Case("numbers as BYTES", lambda: by_region((2,), "BYTES"), INVALID, (IMAGE, "BYTES: element 0 claims")),
    Case("one region 5,000 times", lambda: by_region(times=5000), INVALID, ("at most 4096 inputs",)),
    # the signature
    Case("wrong dtype", lambda: arrays("pixels", image=pixels().astype(np.float32)), INVALID, (IMAGE, "expected uint8 [-1,4,5,3], got float32 [2,4,5,3]")),
    Case("wrong rank", lambda: arrays("pixels", image=pixels()[0]), INVALID, (IMAGE, "expected uint8 [-1,4,5,3], got uint8 [4,5,3]")),
    Case("no axes", lambda: raw("image", "UINT8", [], b"a"), INVALID, (IMAGE, "expected uint8 [-1,4,5,3], got uint8 []")),
    Case("wrong size", lambda: arrays("pixels", image=pixels()[:, :3]), INVALID, (IMAGE, "expected uint8 [-1,4,5,3], got uint8 [2,3,5,3]")),
    Case("channels first", lambda: arrays("pixels", image=pixels().transpose(0, 3, 1, 2)), INVALID, (IMAGE, "got uint8 [2,3,4,5]")),
    Case("wrong name", lambda: arrays("pixels", picture=pixels()), INVALID, ('missing input "image"', 'the model takes "image" uint8 [-1,4,5,3]')),
    Case("no name", lambda: raw("", "UINT8", [1, 60], SENT[:60]), INVALID, ('missing input "image"',)),
    Case("long name", lambda: arrays("pixels", **{"x" * 100_000: pixels()}), INVALID, ('missing input "image"',)),
    Case("name of four-byte letters", lambda: arrays("pair", a=THREE, b=THREE, **{"\U0001f600" * 9999: THREE}), INVALID, ('unexpected input "\U0001f600', 'the model takes "a" float32 [-1,3]')),
    Case("name of control letters", lambda: arrays("pixels", image=pixels(), **{"\x1b[2J\n\r\0": pixels()}), INVALID, ("unexpected input", "the model takes")),
    Case("missing input", lambda: arrays("pair", a=THREE), INVALID, ('missing input "b"', '"a" float32 [-1,3], "b" float32 [-1,3]')),
    Case("no inputs", lambda: Request(model_name="pair").SerializeToString(), INVALID, ('missing input "a", input "b"',)),
    Case("extra input", lambda: arrays("pair", a=THREE, b=THREE, c=THREE), INVALID, ('unexpected input "c"',)),
    Case("5000 inputs", lambda: arrays("pair", **{str(n): THREE for n in range(5000)}), INVALID, ("expected at most 4096 inputs, got 5000",)),
    Case("4000 inputs", lambda: arrays("pair", a=THREE, b=THREE, **{f"{n:060}": THREE for n in range(4000)}), INVALID, ("unexpected input", "and 3996 more")),
    Case("doubled input", lambda: changed(good(), lambda request: request.MergeFrom(request)), INVALID, ('input "image" comes twice',)),
    Case("rows that disagree", lambda: arrays("pair", a=THREE, b=ODD), INVALID, ("inputs disagree on the number of rows", "'a': 1, 'b': 2")),
    Case("zero rows", lambda: arrays("pixels", image=pixels()[:0]), INVALID, (IMAGE, "expected at least 1 row, got 0")),
    Case("zero rows of pictures", lambda: raw("image", "BYTES", [0], b"", "picture"), INVALID, (IMAGE, "expected at least 1 row, got 0")),
    Case("text for pixels", lambda: raw("image", "BYTES", [1], b"\x0b\0\0\0" + PAYLOAD), INVALID, (IMAGE, "expected uint8 [-1,4,5,3], got object [1]")),
    Case("pictures of rank 2", lambda: raw("image", "BYTES", [1, 1], b"\x0b\0\0\0" + PAYLOAD, "picture"), INVALID, (IMAGE, "expected uint8 [-1,8,8,3] or encoded images BYTES [-1], got object [1,1]")),
    Case("more rows than the queue holds", lambda: arrays("pixels", image=np.zeros((513, 4, 5, 3), np.uint8)), "RESOURCE_EXHAUSTED", ("513 rows", "512"), in_parts=True),
    # shapes and lengths
    Case("too few bytes", lambda: raw("image", "UINT8", [1, 4, 5, 3], SENT[:59]), INVALID, (IMAGE, "UINT8 [1, 4, 5, 3] takes 60 bytes, got 59")),
    Case("too many bytes", lambda: raw("image", "UINT8", [1, 4, 5, 3], SENT), INVALID, (IMAGE, "takes 60 bytes, got 66")),
    Case("a part of a number", lambda: raw("a", "FP32", [1, 3], SENT[:11], "pair"), INVALID, ('input "a": ', "FP32 [1, 3] takes 12 bytes, got 11")),
    Case("2^40 rows", lambda: raw("image", "UINT8", [2**40, 4, 5, 3], SENT), INVALID, (IMAGE, f"takes {60 * 2**40} bytes, got 66")),
    Case("2^40 rows, typed", lambda: typed("UINT8", [2**40, 4, 5, 3], uint_contents=[1] * 60), INVALID, (IMAGE, f"takes {60 * 2**40} uint_contents, got 60")),
    Case("product of 2^64 is not 0", lambda: raw("image", "UINT8", [2**32, 2**32], b""), INVALID, (IMAGE, f"takes {2**64} bytes, got 0")),
    Case("product wraps to what was sent", lambda: raw("image", "UINT8", [2**62 + 15, 4], SENT[:60]), INVALID, (IMAGE, f"takes {2**64 + 60} bytes, got 60")),
    Case("2^63 - 1 rows", lambda: raw("image", "UINT8", [2**63 - 1], SENT), INVALID, (IMAGE, f"takes {2**63 - 1} bytes, got 66")),
    Case("32 axes of 2^63 - 1", lambda: raw("image", "UINT8", [2**63 - 1] * 32, SENT), INVALID, (IMAGE, "32 axes]", "takes more than 2^128 bytes, got 66")),
    Case("33 axes", lambda: raw("image", "UINT8", [1] * 33, b"a"), INVALID, (IMAGE, "33 axes are more than the 32")),
    Case("a million axes", lambda: raw("image", "UINT8", [2**62] * 1_000_000, b""), INVALID, (IMAGE, "1000000 axes are more than the 32")),
    Case("more axes than the signature", lambda: raw("image", "UINT8", [1] * 32, b"a"), INVALID, (IMAGE, "expected uint8 [-1,4,5,3], got uint8 [1,1,1")),
    Case("huge axes beside a zero", lambda: raw("image", "UINT8", [2**62, 2**62, 0], b""), INVALID, (IMAGE,)),
    Case("negative rows", lambda: raw("image", "UINT8", [-1, 4, 5, 3], SENT), INVALID, (IMAGE, "shape [-1, 4, 5, 3] has a negative axis")),
    Case("two negative axes", lambda: raw("image", "UINT8", [-1, -4, 5, 3], SENT[:60]), INVALID, (IMAGE, "has a negative axis")),
    Case("least integer", lambda: raw("image", "UINT8", [-(2**63)], SENT), INVALID, (IMAGE, "has a negative axis")),
    Case("a shape that claims 2 GiB", lambda: raw("image", "UINT8", [2**31], SENT), INVALID, (IMAGE, f"takes {2**31} bytes, got 66")),
    Case("an element that claims 2 GiB", lambda: raw("image", "BYTES", [1], struct.pack("<I", 2**31) + PAYLOAD, "picture"), INVALID, (IMAGE, f"element 0 claims {2**31} bytes, 11 are left")),
    Case("an element that claims 4 GiB", lambda: raw("image", "BYTES", [1], b"\xff\xff\xff\xff" + PAYLOAD, "picture"), INVALID, (IMAGE, f"element 0 claims {2**32 - 1} bytes, 11 are left")),
    Case("an element without its length", lambda: raw("image", "BYTES", [2], b"\x01\0\0\0a\x01\0", "picture"), INVALID, (IMAGE, "element 1 ends inside its length")),
    Case("fewer elements", lambda: raw("image", "BYTES", [2], b"\x0b\0\0\0" + PAYLOAD, "picture"), INVALID, (IMAGE, "BYTES [2] takes 2 elements, got 1")),
    Case("more elements", lambda: raw("image", "BYTES", [1], (b"\x0b\0\0\0" + PAYLOAD) * 3, "picture"), INVALID, (IMAGE, "BYTES [1] takes 1 elements, got more")),
    Case("millions of elements of no bytes", lambda: raw("image", "BYTES", [2**22], bytes(4 << 22), "picture"), INVALID, (IMAGE, "BYTES [4194304]: expected at most 65536 elements")),
    Case("many elements, typed", lambda: typed("BYTES", [2**17], model="picture", bytes_contents=[b""] * 2**17), INVALID, (IMAGE, "expected at most 65536 elements")),
    # raw and typed contents
    Case("no contents", lambda: changed(good(), lambda request: request.ClearField("raw_input_contents")), INVALID, (IMAGE, "takes 120 uint_contents, got 0")),
    Case("extra raw contents", lambda: changed(good(), lambda request: request.raw_input_contents.append(PAYLOAD)), INVALID, ("raw_input_contents: expected one for each of the 1 inputs, got 2",)),
    Case("missing raw contents", lambda: changed(arrays("pair", a=THREE, b=THREE), lambda request: request.raw_input_contents.pop()), INVALID, ("expected one for each of the 2 inputs, got 1",)),
    Case("raw contents without inputs", lambda: Request(model_name="pixels", raw_input_contents=[PAYLOAD]).SerializeToString(), INVALID, ("expected one for each of the 0 inputs, got 1",)),
    Case("raw and typed contents", lambda: changed(good(), lambda request: request.inputs[0].contents.uint_contents.append(1)), INVALID, (IMAGE, "has contents besides raw_input_contents")),
    Case("typed contents of two kinds", lambda: typed("UINT8", [1, 4, 5, 3], uint_contents=[1] * 60, fp32_contents=[0.5]), INVALID, (IMAGE, "UINT8 travels in uint_contents, got fp32_contents besides")),
    Case("typed contents of another kind", lambda: typed("UINT8", [1, 4, 5, 3], int_contents=[1] * 60), INVALID, (IMAGE, "takes 60 uint_contents, got 0")),
    Case("300 for a uint8", lambda: typed("UINT8", [1, 4, 5, 3], uint_contents=[300] + [1] * 59), INVALID, (IMAGE, "element 0 does not fit UINT8, which holds 0 to 255")),
    Case("2^32 - 1 for a uint8", lambda: typed("UINT8", [1, 4, 5, 3], uint_contents=[2**32 - 1] * 60), INVALID, (IMAGE, "element 0 does not fit UINT8")),
    Case("-129 for an int8", lambda: typed("INT8", [1, 4, 5, 3], int_contents=[-129] * 60), INVALID, (IMAGE, "element 0 does not fit INT8, which holds -128 to 127")),
    Case("half precision, typed", lambda: typed("FP16", [1], fp32_contents=[1]), INVALID, (IMAGE, "FP16 has no typed contents")),
    Case("a boolean of 2", lambda: raw("image", "BOOL", [1], b"\2"), INVALID, (IMAGE, "BOOL: each byte is 0 or 1")),
    Case("unknown datatype", lambda: raw("image", "FLOAT", [1], SENT[:4]), INVALID, (IMAGE, 'datatype "FLOAT" is unknown; wanted one of BOOL, UINT8')),
    Case("no datatype", lambda: raw("image", "", [1], b"a"), INVALID, (IMAGE, 'datatype "" is unknown')),
    Case("long datatype", lambda: raw("image", "X" * 100_000, [1], b"a"), INVALID, (IMAGE, "is unknown")),
    # numbers that are none
    Case("NaN and infinities pass, row by row", lambda: arrays("pair", a=ODD, b=np.ones_like(ODD)), "OK", expected=lambda: ODD + 1),
    Case("NaN and infinities, typed", lambda: typed("FP32", [1, 3], "a", "pair", fp32_contents=[np.nan, np.inf, 1]), INVALID, ('missing input "b"',)),
    Case("infinity less infinity", lambda: arrays("pair", a=ODD, b=-ODD), "OK", expected=lambda: np.array([[np.nan] * 3, [0, 0, 0]], np.float32)),
    # what the request asks for
    Case("unknown model", lambda: arrays("nothing", image=pixels()), "NOT_FOUND", ('model "nothing" is not served here; served: pixels',)),
    Case("no model", lambda: arrays("", image=pixels()), "NOT_FOUND", ('model "" is not served here',)),
    Case("long model", lambda: arrays("m" * 1_000_000, image=pixels()), "NOT_FOUND", ("is not served here",)),
    Case("model of a path", lambda: arrays("../../etc/passwd", image=pixels()), "NOT_FOUND", ('model "../../etc/passwd" is not served here',)),
    Case("unknown version", lambda: raw("image", "UINT8", [1], b"a", model_version="9"), "NOT_FOUND", ('model "pixels" has no version "9"; served: 1',)),
    Case("long version", lambda: raw("image", "UINT8", [1], b"a", model_version="9" * 100_000), "NOT_FOUND", ("has no version",)),
    Case("unknown output", lambda: changed(good(), lambda request: request.outputs.add(name="logits")), INVALID, ('output "logits" is unknown; the model gives output',)),
    Case("long output", lambda: changed(good(), lambda request: request.outputs.add(name="l" * 100_000)), INVALID, ("is unknown; the model gives output",)),
    Case("doubled output", lambda: changed(good(), lambda request: request.outputs.extend([Request.InferRequestedOutputTensor(name="output")] * 2)), INVALID, ('output "output" is asked for twice',)),
    Case("long id", lambda: raw("image", "UINT8", [1], b"a", id="i" * 1_000_000), INVALID, ("id: expected at most 1024 letters, got 1000000",)),
    Case("0 classes", lambda: asking(int64_param=0), INVALID, ('output "output": classification: wanted an int64 of at least 1',)),
    Case("-1 classes", lambda: asking(int64_param=-1), INVALID, ("classification: wanted",)),
    Case("classes in words", lambda: asking(string_param=PAYLOAD.decode()), INVALID, ("classification: wanted",)),
    Case("half a class", lambda: asking(double_param=0.5), INVALID, ("classification: wanted",)),
    Case("classes without a number", lambda: asking(), INVALID, ("classification: wanted",)),
    Case("2^63 - 1 classes", lambda: asking(int64_param=2**63 - 1), "OK"),
    Case("classes of what is NaN", lambda: changed(arrays("pair", a=ODD, b=ODD), lambda request: request.outputs.add(name="output").parameters["classification"].CopyFrom(pb.InferParameter(int64_param=3))), "OK"),
    Case("a timeout in words", lambda: timing(string_param="soon"), INVALID, ('parameter "timeout": wanted an int64 of microseconds',)),
    Case("a timeout before now", lambda: timing(int64_param=-1), INVALID, ('parameter "timeout": wanted an int64 of microseconds',)),
    Case("a timeout that is NaN", lambda: timing(double_param=float("nan")), INVALID, ('parameter "timeout": wanted an int64 of microseconds',)),
    Case("a timeout of 292000 years", lambda: timing(int64_param=2**63 - 1), "OK", expected=lambda: MODELS["pixels"].answer(pixels())),
    # messages
    Case("no message", lambda: b"", "NOT_FOUND", ('model "" is not served here',)),
    Case("bytes that are no message", lambda: b"\xff" * 40, INVALID, ("40 bytes are no ModelInferRequest",), ends_stream=True),
    Case("text", lambda: PAYLOAD * 9, INVALID, ("99 bytes are no ModelInferRequest",), ends_stream=True),
    Case("half a message", lambda: good()[:-50], INVALID, ("bytes are no ModelInferRequest",), ends_stream=True),
    Case("a name that is no UTF-8", lambda: b"\x0a\x02\xff\xfe", INVALID, ("4 bytes are no ModelInferRequest",), ends_stream=True),
    Case("nested groups without an end", lambda: b"\x0b" * 100_000, INVALID, ("100000 bytes are no ModelInferRequest",), ends_stream=True),
    Case("unknown fields are skipped", lambda: good() + b"\xfa\x3f\x0b" + PAYLOAD, "OK", expected=lambda: MODELS["pixels"].answer(pixels())),
    Case("8 million empty inputs", lambda: b"\x2a\0" * (9 << 20), INVALID, ("expected at most 16384 fields",), ends_stream=True),
    Case("8 million empty raw contents", lambda: b"\x3a\0" * (9 << 20), INVALID, ("expected at most 16384 fields",), ends_stream=True),
    Case("20 MB of axes", lambda: raw("image", "UINT8", [1] * (20 << 20), b""), INVALID, ("more than 16777216 bytes beside raw_input_contents",), ends_stream=True),
    Case("large tensors in raw contents", lambda: raw("image", "UINT8", [17 << 20], bytes(17 << 20)), INVALID, (IMAGE, "got uint8 [17825792]")),
]  # fmt: skip


# pictures


def picture_of(*encoded: bytes, model: str = "picture") -> Callable[[], bytes]:
    return lambda: arrays(model, image=np.array([*encoded, None], object)[:-1])


@cache
def photograph(width: int = 61, height: int = 43) -> PIL.Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    plane = [x * 200 // width, y * 200 // height, (x + y) * 200 // (width + height)]
    return PIL.Image.fromarray(np.stack(plane, -1).astype(np.uint8))


def encode(kind: str, image: PIL.Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or photograph()).save(buffer, kind, **options)
    return buffer.getvalue()


def seen(encoded: bytes) -> Callable[[], Array]:
    """What the model answers to a picture as Pillow, and so fastai, reads it."""

    def answer() -> Array:
        image = PIL.Image.open(io.BytesIO(encoded)).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((8, 8), PIL.Image.Resampling.BILINEAR)
        return MODELS["picture"].answer(np.asarray(square)[None])

    return answer


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, rows: bytes = bytes(100)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")])


def jpeg_of(width: int, height: int, kind: int = 0xC0, depth: int = 8) -> bytes:
    """A JPEG with another size, process or depth in its frame header."""
    jpeg = bytearray(encode("JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 1] = kind
    jpeg[at + 4] = depth
    struct.pack_into(">HH", jpeg, at + 5, height, width)
    return bytes(jpeg)


def jpeg_of_scans(scans: int) -> bytes:
    progressive = encode("JPEG", PIL.Image.new("RGB", (1000, 1000)), progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    return progressive[:-2] + last * scans + progressive[-2:]


def jpeg_with(marker: int, content: bytes, times: int = 1) -> bytes:
    segment = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    jpeg = encode("JPEG")
    return jpeg[:2] + segment * times + jpeg[2:]


def animation(kind: str, **options: Any) -> bytes:
    frames = [PIL.Image.new("RGB", (30, 30), colour) for colour in ((200, 10, 10), (10, 200, 10), (10, 10, 200))]
    return encode(kind, frames[0], save_all=True, append_images=frames[1:], duration=100, **options)


def webp_canvas(side: int) -> bytes:
    """An animated WebP whose header claims a canvas of side x side."""
    webp = bytearray(animation("WEBP"))
    at = webp.index(b"VP8X") + 12
    webp[at : at + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(webp)


def bmp(width: int, height: int) -> bytes:
    content = bytearray(encode("BMP"))
    struct.pack_into("<ii", content, 18, width, height)
    return bytes(content)


def exif_loop() -> bytes:
    """EXIF whose directory points at itself, with a tag that claims 2^32 - 1 values."""
    tag = struct.pack("<HHII", 0x0112, 3, 0xFFFFFFFF, 8)
    return (
        b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 2) + tag + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    )


def with_text(content: bytes) -> bytes:
    return png(9, 9, chunk(b"zTXt", b"key\0\0" + zlib.compress(content, 9)), rows=bytes(9 * 28))


LIMIT = "pixels are more than the limit of 64000000"
NONE = "bytes are no JPEG, PNG, WEBP, BMP picture"
TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def shown(name: str, encoded: bytes) -> Case:
    return Case(name, picture_of(encoded), "OK", expected=seen(encoded))


def refused(name: str, encoded: bytes, *says: str, model: str = "picture") -> Case:
    return Case(name, picture_of(encoded, model=model), INVALID, ("row 0: ", *says))


def _pictures() -> list[Case]:
    noise = random.Random(0).randbytes(5000)
    grey16 = PIL.Image.fromarray(np.arange(61 * 43, dtype=np.uint16).reshape(43, 61) * 25)
    good_picture = encode("PNG")
    return [
        refused("empty", b"", "0 " + NONE),
        refused("random bytes", noise, NONE),
        refused("a text", PAYLOAD * 9, "99 " + NONE),
        *(refused(f"random bytes after the magic of {kind}", magic + noise) for kind, magic in (("JPEG", b"\xff\xd8\xff"), ("PNG", b"\x89PNG\r\n\x1a\n"), ("WebP", b"RIFF\x80\x13\0\0WEBPVP8 "), ("BMP", b"BM"))),
        *(refused(f"half a {kind}", encode(kind)[: len(encode(kind)) // 2]) for kind in ("JPEG", "PNG", "WEBP", "BMP")),
        *(refused(f"the first 20 bytes of a {kind}", encode(kind)[:20]) for kind in ("JPEG", "PNG", "WEBP", "BMP")),
        Case("a bad row among good ones", picture_of(good_picture, PAYLOAD, good_picture), INVALID, ("row 1: ", NONE)),
        # as Pillow shows them, so as fastai trained on them
        *(shown(f"{kind}, whatever its name", encode(kind)) for kind in ("JPEG", "PNG", "WEBP", "BMP")),
        shown("APNG: its first frame", animation("PNG")),
        shown("animated WebP: its first frame", animation("WEBP")),
        shown("JPEG of several pictures: the first", encode("MPO", save_all=True, append_images=[photograph(20, 10)])),
        shown("16-bit grey PNG: clipped, as Pillow does", encode("PNG", grey16)),
        shown("16-bit colour PNG", png(9, 9, depth=16, rows=(b"\0" + bytes(range(54))) * 9)),
        shown("CMYK JPEG", encode("JPEG", photograph().convert("CMYK"))),
        shown("transparent PNG", encode("PNG", photograph().convert("RGBA"))),
        shown("1 pixel", encode("PNG", photograph(1, 1))),
        shown("EXIF of 60 KB, twenty times", jpeg_with(0xE1, b"Exif\0\0" + bytes(60_000), 20)),
        shown("EXIF that loops, ignored", jpeg_with(0xE1, exif_loop())),
        shown("a comment of a megabyte", jpeg_with(0xFE, PAYLOAD * 5000, 18)),
        shown("JPEG with an ICC profile", encode("JPEG", icc_profile=SRGB)),
        shown("PNG with an ICC profile", encode("PNG", icc_profile=SRGB)),
        shown("JPEG with an ICC profile that is none", encode("JPEG", icc_profile=noise)),
        shown("a thumbnail in the EXIF", jpeg_with(0xE1, b"Exif\0\0" + encode("JPEG", photograph(9, 9)))),
        shown("a line of 16000 pixels", encode("PNG", photograph(16_000, 1))),
        # formats nobody asked for, so that no parser of theirs ever runs
        *(refused(f"{kind}", content, NONE) for kind, content in (
            ("GIF", animation("GIF")), ("TIFF", encode("TIFF")), ("ICO", encode("ICO", sizes=[(16, 16)])), ("PPM", encode("PPM")),
            ("JPEG 2000", encode("JPEG2000")), ("AVIF", b"\0\0\0 ftypavif" + noise), ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), ("PDF", b"%PDF-1.7\n" + noise),
            ("GIF with a canvas of 65535 x 65535", b"GIF89a\xff\xff\xff\xff" + noise),
            ("TIFF that claims 2^32 pixels", b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 256, 4, 1, 65535, 257, 4, 1, 65535)),
        )),
        # bombs: small to send, large to hold
        refused("PNG of 60000 x 60000", png(60_000, 60_000), LIMIT),
        refused("PNG of 10000 x 10000", png(10_000, 10_000), LIMIT),
        refused("PNG of 2^31 - 1 pixels", png(2**31 - 1, 1), LIMIT),
        refused("JPEG of 65500 x 65500", jpeg_of(65_500, 65_500), LIMIT),
        refused("WebP animation with a canvas of 16384 x 16384", webp_canvas(16_384), LIMIT),
        refused("BMP of 2^31 - 1 x 2^31 - 1", bmp(2**31 - 1, 2**31 - 1), LIMIT),
        refused("PNG that keeps 100 MB in a text", with_text(bytes(100 << 20)), "broken picture"),
        refused("JPEG of 10000 scans", jpeg_of_scans(10_000), "more than 100 scans"),
        refused("PNG within the limit, without its pixels", png(7900, 7900), "broken picture"),
        shown("JPEG within the limit, without its pixels: grey", jpeg_of(7900, 7900)),
        # broken in other ways
        refused("PNG of no width", png(0, 9)),
        refused("JPEG of no width", jpeg_of(0, 9)),
        refused("BMP of negative width", bmp(-61, 43)),
        refused("PNG chunk that claims 2 GiB", png(9, 9, struct.pack(">I4s", 2**31 - 1, b"tEXt") + PAYLOAD)),
        refused("PNG with a wrong checksum", png(9, 9).replace(b"IHDR", b"IHDX")),
        refused("JPEG of 12 bits", jpeg_of(61, 43, depth=12)),
        refused("lossless JPEG", jpeg_of(61, 43, kind=0xC3)),
        shown("arithmetic JPEG that is none: grey", jpeg_of(61, 43, kind=0xC9)),
        # where the EXIF orientation counts
        Case("a quarter turn", picture_of(encode("JPEG", photograph(43, 43), exif=TURNED), model="upright"), "OK"),
        Case("EXIF that loops, asked for", picture_of(jpeg_with(0xE1, exif_loop()), model="upright"), "OK", expected=seen(encode("JPEG"))),
        Case("EXIF of zeros, asked for", picture_of(jpeg_with(0xE1, b"Exif\0\0" + bytes(60_000), 20), model="upright"), "OK", expected=seen(encode("JPEG"))),
    ]  # fmt: skip


PICTURES = _pictures()


# directories


@dataclass(frozen=True)
class Directory:
    """A directory that is given for a model, the error it gets, and words of the text."""

    name: str
    make: Callable[[Path], object]
    error: type[TensignError]
    says: tuple[str, ...]


def tensor(dtype: Any, shape: Any, name: Any = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return spec if name is None else {**spec, "name": name}


def document(**changes: Any) -> dict[str, Any]:
    """A good MLmodel but for the changes; signature parts are written as JSON."""
    whole: dict[str, Any] = {
        "flavors": {"onnx": {"data": "model.onnx"}},
        "signature": {"inputs": [tensor("uint8", [-1, 8, 8, 3])], "outputs": [tensor("float32", [-1, 3])]},
        **changes,
    }
    if isinstance(whole["signature"], dict):
        whole["signature"] = {
            part: specs if isinstance(specs, str) else json.dumps(specs) for part, specs in whole["signature"].items()
        }
    return whole


def network(outputs: int = 3, inputs: dict[str, tuple[str, list[int]]] | None = None, *, busy: bool = False) -> bytes:
    """An ONNX file: the mean of each channel of an image, or the sum of two inputs.

    busy: each run takes some milliseconds more, whatever its rows, so that requests meet in batches.
    """
    from onnx import numpy_helper

    given = inputs or {"image": ("uint8", [-1, 8, 8, 3])}
    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    if len(given) == 1:
        nodes = [
            helper.make_node("Cast", [*given], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        ]
    else:
        nodes = [helper.make_node("Add", [*given], ["mean"])]
    if busy:
        nodes += [
            helper.make_node("RandomUniform", [], ["random"], shape=[700, 700]),
            helper.make_node("MatMul", ["random", "random"], ["product"]),
            helper.make_node("ReduceMean", ["product"], ["number"], keepdims=0),
            helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        ]
    nodes.append(helper.make_node("Add", ["mean", "nothing" if busy else "zero"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info(name, types[dtype], ["n", *shape[1:]]) for name, (dtype, shape) in given.items()],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(np.zeros(outputs, np.float32), "zero")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def external(location: str) -> bytes:
    """The same network, with its weights in another file."""
    model = __import__("onnx").load_from_string(network())
    zero = model.graph.initializer[0]
    zero.ClearField("raw_data")
    zero.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        zero.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())


def write(path: Path, content: bytes | str | dict[str, Any] = b"", onnx: bytes | None = None, **files: bytes) -> None:
    path.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content) if isinstance(content, dict) else content
    (path / "MLmodel").write_bytes(text.encode() if isinstance(text, str) else text)
    if onnx is not None:
        (path / "model.onnx").write_bytes(onnx)
    for name, given in files.items():
        (path / name).write_bytes(given)


def mlmodel(content: bytes | str | dict[str, Any]) -> Callable[[Path], None]:
    return lambda path: write(path, content, network(), labels=b'["a", "b", "c"]')


def signed(inputs: Any = None, outputs: Any = None) -> Callable[[Path], None]:
    good_inputs, good_outputs = [tensor("uint8", [-1, 8, 8, 3])], [tensor("float32", [-1, 3])]
    return mlmodel(document(signature={"inputs": inputs or good_inputs, "outputs": outputs or good_outputs}))


def flavored(**flavor: Any) -> Callable[[Path], None]:
    return mlmodel(document(flavors={"onnx": {"data": "model.onnx", **flavor}}))


def declared(preprocess: Any) -> Callable[[Path], None]:
    return mlmodel(document(metadata={"tensign": {"preprocess": preprocess}}))


def linked(name: str, target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path, document())
        (path.parent / "outside.onnx").write_bytes(network())
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(target)

    return make


def leaving(path: Path) -> None:
    write(path, document(flavors={"onnx": {"data": "../outside.onnx"}}))
    (path.parent / "outside.onnx").write_bytes(network())


def external_above(path: Path) -> None:
    write(path, document(), external("../secret"))
    (path.parent / "secret").write_bytes(bytes(12))


def external_link(path: Path) -> None:
    write(path, document(), external("weights"))
    (path.parent / "secret").write_bytes(bytes(12))
    (path / "weights").symlink_to("../secret")


LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)
FLAVORS = "flavors: {onnx: {data: model.onnx}}\n"
YAML = "MLmodel: not YAML: "
SPEC = "not a tensor-spec that MLflow writes"

DIRECTORIES = [
    Directory("nothing there", lambda path: None, ModelNotFound, ("no MLmodel file there",)),
    Directory("an empty directory", lambda path: path.mkdir(), ModelNotFound, ("no MLmodel file there",)),
    Directory("a file", lambda path: path.write_text("x"), ModelNotFound, ("no MLmodel file there",)),
    Directory("MLmodel is a directory", lambda path: (path / "MLmodel").mkdir(parents=True), UnsupportedModel, ("MLmodel: cannot be read: Is a directory",)),
    Directory("MLmodel is a link to itself", linked("MLmodel", "MLmodel"), UnsupportedModel, ("MLmodel: cannot be read: Too many levels of symbolic links",)),
    Directory("MLmodel is a link to what is nobody's business", linked("MLmodel", "/etc/passwd"), UnsupportedModel, ("MLmodel: ",)),
    Directory("an MLmodel without an end", linked("MLmodel", "/dev/zero"), UnsupportedModel, ("MLmodel: more than 1048576 bytes",)),
    # YAML
    Directory("empty", mlmodel(""), UnsupportedModel, ("MLmodel: wanted a YAML map, got NoneType",)),
    Directory("no YAML", mlmodel("flavors: ["), UnsupportedModel, (YAML, "line 1",)),
    Directory("no YAML, and long", mlmodel(b"flavors: {" + PAYLOAD * 2000), UnsupportedModel, (YAML, "line 1")),
    Directory("no text", mlmodel(b"\xff\xfe\0flavors"), UnsupportedModel, ("MLmodel: not UTF-8 text",)),
    Directory("zeros", mlmodel(bytes(1000)), UnsupportedModel, (YAML,)),
    Directory("a list", mlmodel("- flavors\n"), UnsupportedModel, ("wanted a YAML map, got list",)),
    Directory("several documents", mlmodel("a: 1\n---\nb: 2\n"), UnsupportedModel, (YAML, "line 2",)),
    Directory("2 MB", mlmodel(FLAVORS + "#" * (2 << 20)), UnsupportedModel, ("MLmodel: more than 1048576 bytes",)),
    Directory("billion laughs", mlmodel(LAUGHS + FLAVORS), UnsupportedModel, (YAML, "aliases make it more than 100000 values")),
    Directory("billion merges", mlmodel(MERGES + FLAVORS), UnsupportedModel, (YAML, "aliases make it more than 100000 values")),
    Directory("an alias of itself", mlmodel("a: &a [*a]\n" + FLAVORS), UnsupportedModel, (YAML, "nested too deep, or within itself")),
    Directory("nested a hundred thousand times", mlmodel("a: " + "[" * 100_000), UnsupportedModel, (YAML, "line 1", "nested too deep")),
    Directory("nested a hundred times", mlmodel("a: " + "[" * 100 + "]" * 100), UnsupportedModel, (YAML, "nested too deep")),
    Directory("nested by indentation", mlmodel("".join(f"{' ' * n}a:\n" for n in range(1000))), UnsupportedModel, (YAML, "nested too deep")),
    Directory("a tag that calls", mlmodel("a: !!python/object/apply:os.system ['touch hacked']\n" + FLAVORS), UnsupportedModel, (YAML, "line 1: could not determine a constructor")),
    Directory("a tag that imports", mlmodel("a: !!python/name:os.system\n" + FLAVORS), UnsupportedModel, (YAML, "could not determine a constructor")),
    Directory("a tag that makes an object", mlmodel("a: !!python/object:subprocess.Popen {}\n" + FLAVORS), UnsupportedModel, (YAML, "could not determine a constructor")),
    Directory("a date of month 13", mlmodel("utc_time_created: 2026-13-13\n" + FLAVORS), UnsupportedModel, (YAML, "month must be in 1..12")),
    Directory("a timestamp that is none", mlmodel("a: !!timestamp x\n" + FLAVORS), UnsupportedModel, (YAML,)),
    Directory("a number without digits", mlmodel("a: 0b_\n" + FLAVORS), UnsupportedModel, (YAML,)),
    Directory("a number of 100000 digits", mlmodel("a: " + "9" * 100_000 + "\n" + FLAVORS), UnsupportedModel, (YAML, "a number of many digits")),
    Directory("a number of 100000 hex digits", mlmodel("a: 0x" + "f" * 100_000 + "\n" + FLAVORS), UnsupportedModel, (YAML, "a number of many digits")),
    Directory("half a surrogate pair", mlmodel('artifact_path: "\\ud800"\n' + FLAVORS), UnsupportedModel, (YAML, "line 1: found invalid Unicode")),
    Directory("a key that is a date", mlmodel("a: {2026-01-01: x}\n" + FLAVORS), UnsupportedModel, (YAML, "a key that is no text")),
    Directory("a key that is a list", mlmodel("? [a, b]\n: c\n" + FLAVORS), UnsupportedModel, (YAML, "a key that is no text")),
    # what it says
    Directory("no flavors", mlmodel("run_id: 1"), UnsupportedModel, ("MLmodel: wanted `flavors:` as a map of maps",)),
    Directory("flavors of no maps", mlmodel("flavors: {onnx: model.onnx}"), UnsupportedModel, ("wanted `flavors:` as a map of maps",)),
    Directory("a flavor we do not serve", mlmodel(document(flavors={"keras": {}})), UnsupportedModel, ("keras: no engine runs it",)),
    Directory("a flavor without its file", mlmodel(document(flavors={"sklearn": {}})), UnsupportedModel, ('names "model.pkl"',)),
    Directory("no signature", mlmodel(FLAVORS), UnsupportedModel, ("has no signature",)),
    Directory("a signature of no map", mlmodel(document(signature="[]")), UnsupportedModel, ("MLmodel: wanted `signature:` as a map, got str",)),
    Directory("a signature that is no JSON", signed(inputs="[{'"), UnsupportedModel, ("MLmodel: signature inputs is not JSON",)),
    Directory("a signature nested a hundred thousand times", signed(inputs="[" * 100_000), UnsupportedModel, ("MLmodel: signature inputs is not JSON",)),
    Directory("a signature with a number of 5000 digits", signed(inputs="[" + "9" * 5000 + "]"), UnsupportedModel, ("MLmodel: signature inputs is not JSON",)),
    Directory("a signature of numbers", signed(inputs=[1, 2]), UnsupportedModel, ("signature inputs: wanted a list of maps",)),
    Directory("a signature that is text", signed(inputs='"image"'), UnsupportedModel, ("signature inputs: wanted a list of maps",)),
    Directory("no outputs", mlmodel(document(signature={"inputs": [tensor("uint8", [-1, 8, 8, 3])]})), UnsupportedModel, ("declares no outputs",)),
    Directory("columns", signed(inputs=[{"type": "double", "name": PAYLOAD.decode() * 1000}]), UnsupportedModel, ("wanted a name of at most 256",)),
    Directory("unknown dtype", signed([tensor("float128x", [-1, 3])]), UnsupportedModel, ("signature input", SPEC, "float128x")),
    Directory("a dtype that is a record", signed([tensor("f4,f4", [-1, 3])]), UnsupportedModel, (SPEC, "is none of numpy's")),
    Directory("a dtype that is a list", signed([tensor([["a", "f4"]], [-1, 3])]), UnsupportedModel, (SPEC, "is none of numpy's")),
    Directory("a dtype nested", signed([tensor("(" * 5000, [-1, 3])]), UnsupportedModel, (SPEC, "is none of numpy's")),
    Directory("a dtype without a datatype", signed([tensor("complex64", [-1, 3])]), UnsupportedModel, (SPEC, "complex64 has no datatype")),
    Directory("a shape of text", signed([tensor("uint8", "abc")]), UnsupportedModel, (SPEC,)),
    Directory("a shape of halves", signed([tensor("uint8", [0.5])]), UnsupportedModel, (SPEC,)),
    Directory("no shape", signed([tensor("uint8", [])]), UnsupportedModel, ("wanted 1 to 32 axes",)),
    Directory("a shape of -2", signed([tensor("uint8", [-2, 3])]), UnsupportedModel, ("wanted 1 to 32 axes of -1 or more than 0, got [-2, 3]",)),
    Directory("a shape of 0", signed([tensor("uint8", [-1, 0])]), UnsupportedModel, ("wanted 1 to 32 axes of -1 or more than 0, got [-1, 0]",)),
    Directory("a shape of 100000 axes", signed([tensor("uint8", [1] * 100_000)]), UnsupportedModel, ("wanted 1 to 32 axes", "and more")),
    Directory("a row of 2^62 bytes", signed([tensor("uint8", [-1, 2**31, 2**31])]), UnsupportedModel, ("more than any message can carry",)),
    Directory("an axis of 10^400", signed([tensor("uint8", [-1, 10**400])]), UnsupportedModel, ("more than any message can carry",)),
    Directory("names that are lists", signed([tensor("uint8", [-1], ["a"]), tensor("uint8", [-1], ["a"])]), UnsupportedModel, ("several tensors need a name each",)),
    Directory("a name of half a surrogate pair", signed([tensor("uint8", [-1], "\ud800")]), UnsupportedModel, ("wanted a name of at most 256 printable letters",)),
    Directory("a name of 100000 letters", signed([tensor("uint8", [-1], "n" * 100_000)]), UnsupportedModel, ("wanted a name of at most 256 printable letters",)),
    Directory("a threshold without end", flavored(threshold=float("inf")), UnsupportedModel, ("threshold inf",)),
    Directory("a threshold that is NaN", flavored(threshold=float("nan")), UnsupportedModel, ("threshold nan",)),
    Directory("an activation that is a list", flavored(activation=["softmax"]), UnsupportedModel, ("activation ['softmax']",)),
    Directory("labels that are no JSON", lambda path: write(path, document(flavors={"onnx": {"data": "model.onnx", "labels": "labels"}}), network(), labels=b"["), UnsupportedModel, ("labels: wanted a JSON list of names",)),
    Directory("labels nested", lambda path: write(path, document(flavors={"onnx": {"data": "model.onnx", "labels": "labels"}}), network(), labels=b"[" * 100_000), UnsupportedModel, ("labels: wanted a JSON list of names",)),
    Directory("a label of half a surrogate pair", lambda path: write(path, document(flavors={"onnx": {"data": "model.onnx", "labels": "labels"}}), network(), labels=b'["\\ud800"]'), UnsupportedModel, ("labels: wanted a JSON list of names",)),
    Directory("preprocessing of another version", declared({"version": 9}), UnsupportedModel, ("preprocess: version 9 is unknown",)),
    Directory("preprocessing of no map", declared("resize"), UnsupportedModel, ("preprocess: TypeError",)),
    Directory("preprocessing to 10^9 pixels a side", declared({"version": 1, "steps": [{"op": "resize", "height": 10**9, "width": 10**9}]}), UnsupportedModel, ("preprocess: resize: 1000000000x1000000000 pixels are more than the limit",)),
    Directory("preprocessing by an unknown step", declared({"version": 1, "steps": [{"op": "eval"}]}), UnsupportedModel, ('preprocess: step "eval" is unknown',)),
    Directory("a fastai version of odd digits", mlmodel(document(flavors={"fastai": {"fastai_version": "\u00b2.8"}})), UnsupportedModel, ("converted first",)),
    # files
    Directory("no network", lambda path: write(path, document()), UnsupportedModel, ('names "model.onnx", which is no file of the directory',)),
    Directory("no name of a network", flavored(data=None), UnsupportedModel, ('names "None"',)),
    Directory("a network in a list", flavored(data=["model.onnx"]), UnsupportedModel, ("which is no file of the directory",)),
    Directory("a network above", linked("link", "../outside.onnx"), UnsupportedModel, ("which is no file of the directory",)),
    Directory("a path that leaves", leaving, UnsupportedModel, ('names "../outside.onnx", which is no file of the directory',)),
    Directory("a path that leaves and returns", lambda path: write(path, document(flavors={"onnx": {"data": f"../{path.name}/model.onnx"}}), network()), UnsupportedModel, ("which is no file of the directory",)),
    Directory("an absolute path", flavored(data="/etc/passwd"), UnsupportedModel, ('names "/etc/passwd", which is no file of the directory',)),
    Directory("a link that leaves", linked("model.onnx", "../outside.onnx"), UnsupportedModel, ('names "model.onnx", which is no file of the directory',)),
    Directory("a link to an absolute path", linked("model.onnx", "/etc/passwd"), UnsupportedModel, ('names "model.onnx", which is no file of the directory',)),
    Directory("a link to itself", linked("model.onnx", "model.onnx"), UnsupportedModel, ('names "model.onnx", which is no file of the directory',)),
    Directory("a path with a zero", flavored(data="model\0.onnx"), UnsupportedModel, ("which is no file of the directory",)),
    Directory("a path of 100000 letters", flavored(data="m" * 100_000), UnsupportedModel, ("which is no file of the directory",)),
    Directory("labels that leave", flavored(labels="../../labels"), UnsupportedModel, ('names "../../labels", which is no file of the directory',)),
    Directory("a network of no bytes", lambda path: write(path, document(), b""), UnsupportedModel, ("model.onnx: ONNX Runtime cannot load it",)),
    Directory("a network of random bytes", lambda path: write(path, document(), random.Random(0).randbytes(9999)), UnsupportedModel, ("model.onnx: ONNX Runtime cannot load it",)),
    Directory("half a network", lambda path: write(path, document(), network()[:-100]), UnsupportedModel, ("model.onnx: ONNX Runtime cannot load it",)),
    Directory("weights above", external_above, UnsupportedModel, ("model.onnx: ONNX Runtime cannot load it",)),
    Directory("weights at an absolute path", lambda path: write(path, document(), external("/etc/passwd")), UnsupportedModel, ("model.onnx: ONNX Runtime cannot load it",)),
    Directory("weights behind a link that leaves", external_link, UnsupportedModel, ("model.onnx: ONNX Runtime cannot load it",)),
    Directory("weights that are not there", lambda path: write(path, document(), external("weights")), UnsupportedModel, ("model.onnx: ONNX Runtime cannot load it",)),
    Directory("a network of another shape", lambda path: write(path, document(), network(7, {"image": ("uint8", [-1, 8, 8, 7])})), UnsupportedModel, ("the signature promises uint8 [-1,8,8,3], the network in the file has uint8 [-1,8,8,7]",)),
    Directory("a network of other inputs", lambda path: write(path, document(), network(3, {"a": ("float32", [-1, 3]), "b": ("float32", [-1, 3])})), UnsupportedModel, ("the signature's inputs",)),
]  # fmt: skip


def written(path: Path, model: Served) -> Path:
    """The MLmodel directory of a model that is served to the cases."""
    metadata = {"metadata": {"tensign": {"preprocess": model.preprocess}}} if model.preprocess else {}
    inputs = [tensor(dtype, shape, name) for name, (dtype, shape) in model.inputs.items()]
    outputs = [tensor("float32", [-1, model.outputs], "output")]
    onnx = network(model.outputs, model.inputs, busy=True)
    write(path, document(signature={"inputs": inputs, "outputs": outputs}, **metadata), onnx)
    return path
