"""NVIDIA's own tritonserver binary, 2.51, out of the wheel of PyTriton: the one that a package registry has.

That wheel holds the Python backend and no other, so ONNX Runtime runs there. A batch never waits, which was its best here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from compare.loads import Load
from compare.rival import INSIDE, Rival, Stage
from compare.wire import infer_answer, infer_request
from h2load import Request

_CONFIG = """\
name: "m"
backend: "python"
max_batch_size: 64
input [{{ name: "image" data_type: {datatype} dims: [{dims}] }}]
output [{{ name: "answer" data_type: TYPE_FP32 dims: [-1] }}]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
instance_group [{{ kind: KIND_CPU count: {instances} }}]
parameters: {{ key: "file" value: {{ string_value: "{file}" }} }}
"""


def _command(stage: Stage) -> list[str]:
    """Pictures are decoded in as many processes as there are CPUs; a model without decoding is faster in one."""
    packages = next(stage.python.parents[1].glob("lib/python*/site-packages"))
    home = packages / "pytriton" / "tritonserver"
    backends = stage.folder / "backends"
    shutil.copytree(home / "backends", backends)
    stub = next(home.glob(f"python_backend_stubs/{packages.parent.name.removeprefix('python')}/*_stub"))
    shutil.copy(stub, backends / "python")
    _lay_out(stage, stage.folder / "models" / "m")
    http, grpc = stage.ports[1], stage.ports[0]
    return [
        *("env", f"LD_LIBRARY_PATH={packages / 'nvidia_pytriton.libs'}", f"PYTHONPATH={INSIDE}:{packages}"),
        *(str(home / "bin" / "tritonserver"), f"--model-repository={stage.folder / 'models'}"),
        *(f"--backend-directory={backends}", "--allow-metrics=false", "--model-control-mode=none"),
        *("--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
    ]


def _lay_out(stage: Stage, model: Path) -> None:
    (model / "1").mkdir(parents=True)
    shutil.copy(INSIDE / "triton_model.py", model / "1" / "model.py")
    datatype, dims, instances = ("TYPE_STRING", "1", stage.threads) if stage.encoded else ("TYPE_UINT8", "300, 300, 3", 1)
    file = stage.model / "model.onnx"
    (model / "config.pbtxt").write_text(_CONFIG.format(datatype=datatype, dims=dims, instances=instances, file=file))


def _request(load: Load) -> Request:
    return infer_request("m", "image", load.pictures.reshape(-1, 1) if load.encoded else load.pictures)


# Its stub embeds an older Python 3.11 than others', whose library it cannot load: Debian's own fits.
TRITON = Rival(
    "Triton",
    _command,
    _request,
    infer_answer,
    environment="triton",
    python="/usr/bin/python3.11",
    package="nvidia-pytriton",
    note="tritonserver 2.51 out of PyTriton's wheel, ONNX Runtime and Pillow in its Python backend",
)
