"""CUDA shared memory as tritonclient uses it: rows that another process has on the GPU are the server's input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ondevice
from ondevice import Array
from tensign.child import served
from tensign.plan import ModelPlan

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

NAME, REGION = "lite0", "rows"


@contextmanager
def region(client: Any, device: str, rows: Array) -> Iterator[None]:
    """Rows in the GPU's memory, where the server may read them."""
    import tritonclient.utils.cuda_shared_memory as shared

    index = int(device.partition(":")[2] or 0)
    handle = shared.create_shared_memory_region(REGION, rows.nbytes, index)
    try:
        shared.set_shared_memory_region(handle, [rows])
        client.register_cuda_shared_memory(REGION, shared.get_raw_handle(handle), index, rows.nbytes)
        try:
            assert [one.name for one in client.get_cuda_shared_memory_status().regions.values()] == [REGION]
            yield
        finally:
            client.unregister_cuda_shared_memory(REGION)
    finally:
        shared.destroy_shared_memory_region(handle)


def test_rows_on_the_gpu_are_answered_as_rows_on_the_wire(device: str, tmp_path: Path) -> None:
    triton = pytest.importorskip("tritonclient.grpc")
    rows, path = ondevice.photographs(8), ondevice.plain(tmp_path / "model")
    signature = ModelPlan.of(path).signature
    tensor, output = signature.inputs[0].name, signature.outputs[0].name
    options = ["--device", device, "--name", NAME, *["--cuda-shared-memory"] * (device != "cpu")]
    with served(path, *options) as address, triton.InferenceServerClient(address) as client:
        given = triton.InferInput(tensor, list(rows.shape), "UINT8")
        given.set_data_from_numpy(rows)
        raw = client.infer(NAME, [given]).as_numpy(output)
        np.testing.assert_allclose(raw, ondevice.on_cpu(rows), atol=1e-4)
        if device == "cpu":
            return
        with region(client, device, rows):
            for count in (8, 3):  # a warmed bucket, and rows that are padded to one
                given = triton.InferInput(tensor, [count, *rows.shape[1:]], "UINT8")
                given.set_shared_memory(REGION, rows[:count].nbytes)
                np.testing.assert_allclose(client.infer(NAME, [given]).as_numpy(output), raw[:count], atol=1e-5)
