"""No input harms: each case of the table gets its status and its words, the neighbours in its batches get their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

import hostile
from conftest import CPU
from hostile import MODELS, PAYLOAD, Case, Directory
from tensign._pb import open_inference_pb2 as pb
from tensign.config import ServerConfig
from tensign.errors import TensignError
from tensign.model import Model
from tensign.regions import FOLDER
from tensign.rpc.codec import decode_response, encode_request
from tensign.testing import serving

INFER, STREAM = (f"/inference.GRPCInferenceService/{method}" for method in ("ModelInfer", "ModelStreamInfer"))
REGISTER = "/inference.GRPCInferenceService/SystemSharedMemoryRegister"
LARGEST = ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)
SECONDS = 60  # that any one call may take, on a busy machine too
MEGABYTES = 50  # by which no bomb raises the peak of a process


@dataclass(frozen=True)
class House:
    """A server, a channel to it, and the models whose answers the neighbours know."""

    channel: grpc.Channel
    models: dict[str, Model]

    def ask(self, message: bytes) -> pb.ModelInferResponse:
        answer = self.channel.unary_unary(INFER, bytes, pb.ModelInferResponse.FromString)(message, timeout=SECONDS)
        assert isinstance(answer, pb.ModelInferResponse)
        return answer

    def stream(self, messages: list[bytes]) -> Iterator[pb.ModelStreamInferResponse]:
        parse = pb.ModelStreamInferResponse.FromString
        yield from self.channel.stream_stream(STREAM, bytes, parse)(iter(messages), timeout=SECONDS)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("served")
    models = {name: Model.load(hostile.written(folder / name, served), CPU, name=name) for name, served in MODELS.items()}
    rows = Path(FOLDER, f"tensign-test-{os.getpid()}-hostile")
    rows.write_bytes(hostile.pixels().tobytes())
    config = ServerConfig(grpc_port=0, drain_s=5.0, shared_memory=(rows.name,))
    with serving(*models.values(), config=config) as address, grpc.insecure_channel(address, options=LARGEST) as channel:
        region = pb.SystemSharedMemoryRegisterRequest(name=hostile.REGION, key=rows.name, byte_size=rows.stat().st_size)
        channel.unary_unary(REGISTER, bytes, bytes)(region.SerializeToString())
        yield House(channel, models)
    rows.unlink()


class Neighbour:
    """A good request of its own pixels, which knows its answer."""

    def __init__(self, number: int) -> None:
        self.name = ("pixels", "pair", "picture")[number % 3]
        self.served = MODELS[self.name]
        chance = np.random.default_rng(number)
        rows = number % 4 + 1
        self.arrays = {
            name: chance.integers(0, 256, (rows, *shape[1:])).astype(dtype)
            for name, (dtype, shape) in self.served.inputs.items()
        }
        self.message = encode_request(self.name, self.arrays, request_id=str(number)).SerializeToString()
        self.id = str(number)

    def check(self, answer: pb.ModelInferResponse) -> None:
        assert (answer.id, answer.model_name) == (self.id, self.name)
        np.testing.assert_allclose(decode_response(answer)["output"], self.served.answer(**self.arrays), rtol=1e-6)


def check_text(case: Case, text: str) -> None:
    for words in case.says:
        assert words in text
    assert text.isprintable() and len(text.encode()) <= 1000
    assert PAYLOAD.decode() not in text


def check_answer(case: Case, answer: pb.ModelInferResponse) -> None:
    assert case.status == "OK"
    if case.expected is not None:
        np.testing.assert_allclose(decode_response(answer)["output"], case.expected(), rtol=1e-5)


ALL = hostile.REQUESTS + hostile.PICTURES


def test_names_of_cases_are_unique() -> None:
    for cases in (ALL, hostile.DIRECTORIES):
        assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_request_harms_neither_server_nor_neighbours(case: Case, house: House) -> None:
    message = case.message()
    neighbours = [Neighbour(number) for number in range(12)]
    started = time.perf_counter()

    def attempt(_: int) -> None:
        try:
            answer = house.ask(message)
        except grpc.RpcError as error:
            assert (error.code().name, bool(error.details())) == (case.status, True), error.details()
            check_text(case, error.details() or "")
        else:
            check_answer(case, answer)

    with ThreadPoolExecutor(14) as pool:
        bad = [pool.submit(attempt, n) for n in range(2)]
        answers = pool.map(lambda neighbour: house.ask(neighbour.message), neighbours)
        for neighbour, answer in zip(neighbours, answers, strict=True):
            neighbour.check(answer)
        for one in bad:
            one.result()

    check_stream(case, house, message, neighbours)
    assert time.perf_counter() - started < SECONDS


def check_stream(case: Case, house: House, message: bytes, neighbours: list[Neighbour]) -> None:
    """Good and bad requests in turn: each good one is answered in its place, each bad one by its own text."""
    if case.ends_stream:
        answers = house.stream([*(neighbour.message for neighbour in neighbours), message])
        for neighbour in neighbours:
            neighbour.check(next(answers).infer_response)
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        assert ended.value.code().name == case.status
        check_text(case, ended.value.details() or "")
        return
    mixed = [part for neighbour in neighbours[:4] for part in (neighbour.message, message)]
    answers = house.stream(mixed)
    for neighbour in neighbours[:4]:
        neighbour.check(next(answers).infer_response)
        answer = next(answers)
        if case.in_parts:
            while not answer.infer_response.parameters["triton_final_response"].bool_param:
                assert not answer.error_message
                answer = next(answers)
        elif case.status == "OK":
            assert not answer.error_message
            check_answer(case, answer.infer_response)
        else:
            check_text(case, answer.error_message)
            assert not answer.infer_response.outputs
            assert answer.ByteSize() < 4000  # neither does it echo names and ids of any length
    assert next(answers, None) is None


def test_good_and_bad_requests_do_share_batches(house: House) -> None:
    """Else the test above would show little: rows of several neighbours run at once while bad requests come in."""
    bad = hostile.REQUESTS[0]
    before = house.models["pixels"].statistics.snapshot()
    for _ in range(10):
        test_a_request_harms_neither_server_nor_neighbours(bad, house)
    after = house.models["pixels"].statistics.snapshot()
    assert after.executions - before.executions < after.success.count - before.success.count
    assert threading.active_count() < 60


def test_bombs_need_no_memory(tmp_path: Path) -> None:
    """In a process of its own, whose peak is told: all pictures but those that are large and within the limit."""
    program = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
import hostile, numpy as np
from conftest import CPU
from tensign._pb import open_inference_pb2 as pb
from tensign.errors import TensignError
from tensign.model import Model
from tensign.rpc.codec import decode_request
from tensign.rpc.wire import received
model = Model.load(hostile.written(Path(sys.argv[1]), hostile.MODELS["picture"]), CPU)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
messages = [case.message() for case in hostile.PICTURES]
first = hostile.picture_of(hostile.encode("JPEG"))()
def infer(message):
    came = received(message)
    model.infer(decode_request(came.request, came.raw))
infer(first)
before, worst = peak(), (0.0, "")
for case, message in zip(hostile.PICTURES, messages):
    if "within the limit" in case.name:
        continue
    was = peak()
    try:
        infer(message)
    except TensignError:
        pass
    worst = max(worst, (peak() - was, case.name))
print(peak() - before, *worst)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "m"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) < MEGABYTES, done.stdout


@pytest.mark.parametrize("case", hostile.DIRECTORIES, ids=lambda case: case.name)
def test_a_directory_that_is_no_model_is_refused_in_words(case: Directory, tmp_path: Path) -> None:
    case.make(tmp_path / "model")
    with pytest.raises(TensignError) as refused:
        Model.load(tmp_path / "model", CPU)
    text = str(refused.value)
    assert type(refused.value) is case.error, text
    for words in case.says:
        assert words in text
    assert text.isprintable() and len(text.encode()) <= 1000
    assert PAYLOAD.decode() * 99 not in text and "root:" not in text
    assert not (tmp_path / "hacked").exists()


DRIVER = """
import contextlib, io, json, sys
from tensign.cli import main
for command, *arguments in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["tensign", command, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def test_commands_on_such_directories_end_in_one_line(tmp_path: Path) -> None:
    """`inspect`, `inspect --json` and `serve`, one after the other in one process: any traceback would end it."""
    commands = []
    for number, case in enumerate(hostile.DIRECTORIES):
        path = tmp_path / str(number) / "model"
        path.parent.mkdir()
        case.make(path)
        for words in (["inspect", "--json"], ["inspect"], ["serve", "--device", "cpu", "--grpc-port", "0"]):
            commands.append([*words, str(path)])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps(commands), capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(commands)
    for (command, *_, last), (code, out, err) in zip(commands, results, strict=True):
        case = hostile.DIRECTORIES[int(Path(last).parent.name)]
        assert "Traceback" not in out + err, case.name
        if code == 2:
            assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1100, (case.name, err)
            assert "model" in err  # which file, or directory, it is
        else:
            assert command == "inspect" and code == 0, (case.name, command, code, err)
