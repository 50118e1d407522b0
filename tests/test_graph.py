"""The exported file itself: stated versions, no hints of where it was made, the same bytes every time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import warnings
from pathlib import Path

import onnx
import pytest

from tensign.errors import UnsupportedModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fastai = pytest.importorskip("fastai.vision.all")
    import torch

    from tensign_converters import graph
    from tensign_converters.networks.order import Ordered
    from tensign_converters.pictures import export
    from tensign_converters.pictures.model import rebuilt
    from tensign_converters.pictures.preprocessing import COLOUR, Preprocessing
    from tensign_converters.pictures.steps import IdentityWarp, Normalize, Scale
    from tensign_converters.subject import Head


def exported(target: Path) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = torch.nn.Sequential(fastai.ConvLayer(3, 4), fastai.ResBlock(1, 4, 4), fastai.AdaptiveConcatPool2d(1))
    warp = IdentityWarp((40, 48), (32, 32), mode="bilinear", pad_mode="reflection", align_corners=True)
    steps = Preprocessing(COLOUR, (), (Scale(255), warp, Normalize([0.5] * 3, [0.25] * 3)), (40, 48), (32, 32))
    head = Head("classification", "softmax", 1, (), None)
    export.export(rebuilt(network.append(torch.nn.Flatten()).eval(), steps, head, (8,), {}), target)
    return onnx.load(target)


def test_versions_names_and_shapes_are_stated(tmp_path: Path) -> None:
    model = exported(tmp_path / "model.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", graph.OPSET)]
    assert model.ir_version == graph.IR_VERSION
    assert not model.functions and not [tensor for tensor in model.graph.initializer if tensor.external_data]
    (image,), (output,) = model.graph.input, model.graph.output
    assert (image.name, output.name) == (graph.INPUT, graph.OUTPUT)
    rows, *rest = image.type.tensor_type.shape.dim
    assert rows.dim_param and [each.dim_value for each in rest] == [40, 48, 3]
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"GridSample", "Identity", "Dropout", "BatchNormalization", "Constant"}  # folded, or not needed
    assert str(Path.home()).encode() not in (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in (tmp_path / "model.onnx").read_bytes()


def test_the_same_model_gives_the_same_bytes_in_this_process_and_in_another(tmp_path: Path) -> None:
    for name in ("first", "second"):
        exported(tmp_path / name)
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; import test_graph"
    elsewhere = [sys.executable, "-W", "ignore", "-c", f"{program}; test_graph.exported(Path({str(tmp_path / 'third')!r}))"]
    subprocess.run(elsewhere, check=True, capture_output=True, timeout=120)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("first", "second", "third")}
    assert len(digests) == 1


class Decides(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class Parts(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x]).chunk(2)[1] - x


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Decides(), r"data-dependent.*a graph has torch\.where for what an if, a while or an int\(\) decides by values"),
        (Parts(), r"for any number of rows: to torch\.export it is made for 2, as one that counts rows or parts them is"),
    ],
)
def test_a_network_that_has_no_graph_for_any_rows_is_one_line(
    network: torch.nn.Module, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = Ordered(network, [0], [0], ["y"]).eval()
    with pytest.raises(UnsupportedModel, match=told):
        graph.write(whole, {"x": (torch.zeros(2, 4), {})}, ["y"], tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
