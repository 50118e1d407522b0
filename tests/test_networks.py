"""Torch networks of every kind, read as data where that can be: they predict what they did, and nothing of theirs runs."""

from __future__ import annotations

import pickle
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from tensign.errors import UnsupportedModel, UntrustedModel
from tensign_converters.networks.network import Network, read_network
from tensign_converters.pickles import members

ANY = torch.export.Dim("rows", min=2)


class Custom(nn.Module):
    """A class of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.inner(x))


class Several(nn.Module):
    """Two tensors and a number in, a dict out."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.0, 2.0]), persistent=False)

    def forward(self, x: Tensor, y: Tensor, power: int = 2) -> dict[str, Tensor]:
        halves = torch.cat([x, y], 1).view(x.shape[0], 2, -1).unbind(1)
        return {"sum": (halves[0] + halves[1]) ** power, "scaled": x.mul_(self.scale) + torch.tensor([0.5, 0.25])}


class Whole(nn.Module):
    """What a conversion puts round a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x / 2)


class Reshaped(nn.Module):
    """Writes the number of rows into its graph, where it was exported for one."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], *self.sizes).transpose(1, 2).reshape(x.shape[0], -1) * 2


def answers(module: nn.Module, *given: Tensor) -> Any:
    with torch.no_grad():
        return module(*(each.clone() for each in given))


def exported(module: nn.Module, file: Path, *given: Tensor, rows: bool = True) -> Path:
    """Written by torch.export.save, for any number of rows or for those given."""
    shapes = tuple({0: ANY} for _ in given) if rows else None
    torch.export.save(torch.export.export(module.eval(), given, dynamic_shapes=shapes), file)
    return file


def onnx_answers(network: Network, given: Tensor) -> Any:
    """Exported to ONNX for any number of rows, and run on one more than was given; and what the network itself answers."""
    module = Whole(network.exportable(given)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(module, (given,), dynamic_shapes=({0: ANY},), dynamo=True, verbose=False, opset_version=20)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    more = torch.cat([given, given[:1] + 1])
    return session.run(None, {"x": more.numpy()})[0], answers(network.module, more / 2).numpy()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.resnet18(num_classes=7).eval()
    return network


@pytest.fixture(scope="module")
def shufflenet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.shufflenet_v2_x0_5(num_classes=7).eval()
    return network


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


# -- whole modules


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("name", "file"), [("digits-pytorch-mlflow3", "data/model.pt2"), ("digits-pytorch-mlflow2", "data/model.pth")]
)
def test_a_trained_fixture_gives_its_golden_answers(
    name: str, file: str, trust: bool, fixture_dir: Callable[[str], Path]
) -> None:
    folder = fixture_dir(name)
    network = read_network(folder / file, trust=trust)
    golden = np.load(folder / "golden.npz")
    for given, wanted in (("inputs", "outputs"), ("inputs_images", "outputs_images")):
        assert np.abs(answers(network.module, torch.from_numpy(golden[given])).numpy() - golden[wanted]).max() <= 1e-5
    assert network.loaded is (trust and network.kind == "pickle") and not network.module.training
    if network.kind == "pt2":
        assert [str(each) for each in (*network.inputs, *network.outputs)] == ["float32 [-1,3,64,64]", "float32 [-1,10]"]
        assert network.inputs[0].name == "input" and network.versions["written_by_torch"] == "2.13.0+cpu"


STOCK: dict[str, Callable[[], Any]] = {
    "resnet18": torchvision.models.resnet18,
    "mobilenet_v3_small": torchvision.models.mobilenet_v3_small,
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "shufflenet_v2": torchvision.models.shufflenet_v2_x0_5,
    "regnet": torchvision.models.regnet_y_400mf,
    "convnext_atto": lambda: timm.create_model("convnext_atto"),
    "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2),
    "swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_network_is_rebuilt_from_its_pickle(name: str, tmp_path: Path, pictures: Tensor) -> None:
    torch.manual_seed(0)
    module = STOCK[name]().eval()
    torch.save(module, tmp_path / "model.pth")
    network = read_network(tmp_path / "model.pth", trust=False)
    assert not network.loaded and torch.equal(answers(network.module, pictures), answers(module, pictures))


@pytest.mark.parametrize("name", ["shufflenet_v2", "vit_tiny"])
def test_a_stock_network_is_read_from_its_program(name: str, tmp_path: Path, pictures: Tensor) -> None:
    torch.manual_seed(0)
    module = STOCK[name]().eval()
    network = read_network(exported(module, tmp_path / "model.pt2", pictures), trust=False)
    three = torch.cat([pictures, pictures[:1] / 2])
    assert torch.equal(answers(network.module, three), answers(module, three))


def test_a_program_becomes_onnx_with_any_number_of_rows(tmp_path: Path, pictures: Tensor) -> None:
    torch.manual_seed(0)
    shuffled = [nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.ChannelShuffle(2)]
    module = nn.Sequential(*shuffled, nn.AdaptiveAvgPool2d(1), Reshaped(2, 4), nn.Linear(8, 5))
    got, wanted = onnx_answers(read_network(exported(module, tmp_path / "model.pt2", pictures), trust=False), pictures)
    assert got.shape == (3, 5) and np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("write", [torch.save, lambda module, file: file.write_bytes(pickle.dumps(module))])
def test_a_class_of_the_users_own_needs_trust(write: Callable[[nn.Module, Path], Any], tmp_path: Path) -> None:
    write(module := Custom().eval(), file := tmp_path / "model.pth")
    with pytest.raises(UntrustedModel, match=r"model.pth: read as data.*is of class test_networks.Custom.*--trust"):
        read_network(file, trust=False)
    network = read_network(file, trust=True)
    assert network.loaded and torch.equal(answers(network.module, torch.ones(3, 4)), answers(module, torch.ones(3, 4)))


def test_a_class_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = types.ModuleType("nowhere.nets")
    net = type("Net", (nn.Module,), {"__module__": "nowhere.nets"})
    home.__dict__["Net"] = net
    monkeypatch.setitem(sys.modules, "nowhere", types.ModuleType("nowhere"))
    monkeypatch.setitem(sys.modules, "nowhere.nets", home)
    torch.save(net(), tmp_path / "model.pth")
    monkeypatch.undo()
    with pytest.raises(UnsupportedModel, match=r"No module named 'nowhere'.*code/ directory.*of class nowhere.nets.Net"):
        read_network(tmp_path / "model.pth", trust=True)


@pytest.mark.parametrize("trust", [False, True])
def test_a_class_of_a_notebook_is_told_with_what_to_do(trust: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = type("Net", (nn.Module,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Net", net, raising=False)
    torch.save(net(), tmp_path / "model.pth")
    monkeypatch.undo()
    said = (
        r"^model\.pth: the network itself is of class __main__\.Net, and the script or notebook .* is not in the file: log the"
    )
    with pytest.raises(UnsupportedModel, match=said):
        read_network(tmp_path / "model.pth", trust=trust)


def test_what_torch_cannot_load_is_still_read(tmp_path: Path) -> None:
    """A hook of the file's own, which inference does not call."""
    home = types.ModuleType("nowhere")
    exec("def hook(*_): ...", home.__dict__)
    sys.modules["nowhere"] = home
    module = nn.Linear(2, 1).eval()
    module.register_full_backward_hook(home.hook)
    torch.save(module, tmp_path / "model.pth")
    del sys.modules["nowhere"]
    network = read_network(tmp_path / "model.pth", trust=True)
    assert not network.loaded and "No module named 'nowhere'" in network.notes[0]


@pytest.mark.parametrize("content", [[1, 2], "model", {"state_dict": 1}])
def test_a_pickle_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pth")
    for trust in (False, True):
        with pytest.raises(UnsupportedModel, match=r"model.pth: .*no module"):
            read_network(tmp_path / "model.pth", trust=trust)


# -- exported programs


def test_a_program_of_several_inputs_names_what_it_gives(tmp_path: Path) -> None:
    given = torch.rand(2, 2), torch.rand(2, 2)
    file = tmp_path / "model"
    program = torch.export.export(Several(), (*given, 3), dynamic_shapes=({0: ANY}, {0: ANY}, None))
    torch.export.save(program, file)
    network = read_network(file, trust=False)
    assert [(each.name, each.shape) for each in network.inputs] == [("x", (-1, 2)), ("y", (-1, 2))]
    assert [(each.name, each.shape, each.named) for each in network.outputs] == [
        ("sum", (-1, 2), True),
        ("scaled", (-1, 2), True),
    ]
    more = torch.rand(5, 2), torch.rand(5, 2)
    got = answers(network.module, *more)
    assert all(map(torch.equal, got, Several()(*more, 3).values()))


@pytest.mark.parametrize("layout", ["2.7", "2.8"])
def test_an_older_layout_is_read(layout: str, tmp_path: Path, resnet: nn.Module, pictures: Tensor) -> None:
    from torch._export.serde.serialize import serialize

    written = serialize(torch.export.export(resnet, (pictures,), dynamic_shapes=({0: ANY},)))
    folder = "model/data"
    members = {
        "2.7": {
            "serialized_exported_program.json": written.exported_program,
            "serialized_state_dict.pt": written.state_dict,
            "serialized_constants.pt": written.constants,
            "version": b"8.9",
        },
        "2.8": {
            "model/archive_format": b"pt2",
            "model/models/model.json": written.exported_program,
            f"{folder}/weights/model.pt": written.state_dict,
            f"{folder}/constants/model.pt": written.constants,
        },
    }[layout]
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    network = read_network(tmp_path / "model.pt2", trust=False)
    assert torch.equal(answers(network.module, pictures), answers(resnet, pictures))


def test_a_program_for_one_row_is_taken_for_any_where_it_treats_rows_alike(tmp_path: Path, resnet: nn.Module) -> None:
    given = torch.rand(3, 3, 32, 32)
    network = read_network(exported(resnet, tmp_path / "model.pt2", given[:1], rows=False), trust=False)
    assert network.inputs[0].shape == (-1, 3, 32, 32) and network.outputs[0].shape == (-1, 7)
    assert torch.allclose(answers(network.module, given), answers(resnet, given), atol=1e-5)


@pytest.mark.parametrize("module", [Reshaped(2, 2), nn.Softmax(0), nn.Flatten(0)], ids=["reshapes", "mixes", "joins"])
def test_a_program_for_one_row_that_does_not_is_refused(module: nn.Module, tmp_path: Path) -> None:
    file = exported(module, tmp_path / "model.pt2", torch.rand(1, 4), rows=False)
    with pytest.raises(UnsupportedModel, match=r"^model\.pt2: a program that was exported for exactly 1 row: export it again"):
        read_network(file, trust=False)


class Summed(nn.Module):
    """Adds up what all rows hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.sum(0, keepdim=True)


class Sure(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x & x.all(0, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_a_program_of_integers_that_mixes_rows_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    mixes, given = Sure() if dtype == torch.bool else Summed(), torch.ones(1, 64).to(dtype)
    file = exported(mixes, tmp_path / "model.pt2", given, rows=False)
    with pytest.raises(UnsupportedModel, match=r"exported for exactly 1 row"):
        read_network(file, trust=False)


def test_a_program_exported_while_training_is_refused(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    torch.export.save(torch.export.export(network, (torch.rand(2, 4),)), tmp_path / "model.pt2")
    with pytest.raises(UnsupportedModel, match=r"exported in training mode; export it again after .eval\(\)"):
        read_network(tmp_path / "model.pt2", trust=False)


class Standardized(nn.Module):
    """A batch norm of weights, as in NFNets: in training mode for ever, and without statistics that it would keep."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        weight = nn.functional.batch_norm(self.weight, None, None, training=True)
        return nn.functional.linear(x, weight[0])


def test_a_batch_norm_that_keeps_nothing_is_no_training(tmp_path: Path) -> None:
    file = exported(module := Standardized(), tmp_path / "model.pt2", given := torch.rand(2, 4))
    assert torch.equal(answers(read_network(file, trust=False).module, given), answers(module, given))


class Cast(nn.Module):
    """What data do not say: a graph within the graph."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return x * 2


def test_a_program_that_needs_more_than_data_is_loaded_with_trust(tmp_path: Path) -> None:
    file = exported(Cast(), tmp_path / "model.pt2", torch.rand(2, 4))
    with pytest.raises(UntrustedModel, match="wrap_with_autocast"):
        read_network(file, trust=False)
    network = read_network(file, trust=True)
    assert network.loaded and torch.equal(answers(network.module.eval(), torch.ones(3, 4)), torch.full((3, 4), 2.0))


# -- state dicts


def _safetensors(state: dict[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, file)


SAVED: dict[str, Callable[[dict[str, Tensor], Path], Any]] = {
    "zip": torch.save,
    "legacy": lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    "plain dict": lambda state, file: torch.save(dict(state), file),
    "safetensors": _safetensors,
    "DataParallel": lambda state, file: torch.save({f"module.{name}": each for name, each in state.items()}, file),
    "compiled": lambda state, file: torch.save({f"_orig_mod.{name}": each for name, each in state.items()}, file),
    "checkpoint": lambda state, file: torch.save({"epoch": 3, "model_state_dict": state, "optimizer": {"lr": [0.1]}}, file),
    "Lightning": lambda state, file: torch.save(
        {"state_dict": OrderedDict((f"model.{name}", each) for name, each in state.items()), "hyper_parameters": {}}, file
    ),
    "half": lambda state, file: torch.save({name: each.double() for name, each in state.items()}, file),
    "before 0.4.1": lambda state, file: torch.save(
        {name: each for name, each in state.items() if not name.endswith("num_batches_tracked")}, file
    ),
}


@pytest.mark.parametrize("way", SAVED)
def test_a_state_dict_fills_the_declared_architecture(
    way: str, tmp_path: Path, shufflenet: nn.Module, pictures: Tensor
) -> None:
    SAVED[way](shufflenet.state_dict(), file := tmp_path / "weights")
    network = read_network(file, trust=False, architecture="torchvision.shufflenet_v2_x0_5", arguments={"num_classes": 7})
    assert (network.kind, network.loaded) == ("state dict", False) and set(network.versions) == {"torch", "torchvision"}
    assert torch.equal(answers(network.module, pictures), answers(shufflenet, pictures))


def test_timm_builds_too(tmp_path: Path, pictures: Tensor) -> None:
    module = timm.create_model("convnext_atto.d2_in1k", num_classes=3).eval()
    torch.save(module.state_dict(), tmp_path / "weights")
    network = read_network(
        tmp_path / "weights", trust=False, architecture="timm.convnext_atto.d2_in1k", arguments={"num_classes": 3}
    )
    assert torch.equal(answers(network.module, pictures), answers(module, pictures))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "undeclared": ("", {}, "holds tensors by name and no network.*`architecture: torchvision.resnet18`"),
    "another head": (
        "torchvision.resnet18",
        {},
        r"does not fit torchvision.resnet18: it differs in size fc.weight is \[7, 512\], wanted \[1000, 512\], fc.bias",
    ),
    "deeper": (
        "torchvision.resnet34",
        {"num_classes": 7},
        "with .'num_classes': 7.: it lacks layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias and 77 more",
    ),
    "shallower": ("timm.resnet10t", {"num_classes": 7}, "it has besides conv1.weight, .* more"),
    "unknown": ("torchvision.evil", {}, r"torchvision \S+ has no evil"),
    "unknown to timm": ("timm.evil", {}, r"timm \S+ has no evil"),
    "no registry": ("os.system", {}, "architecture 'os.system': wanted torchvision.NAME or timm.NAME"),
    "a hub": ("timm.hf-hub:evil/evil", {}, "wanted torchvision.NAME or timm.NAME"),
    "a folder": ("timm.local-dir:/tmp", {}, "wanted torchvision.NAME or timm.NAME"),
    "a download": ("torchvision.resnet18", {"weights": "DEFAULT"}, "argument weights of torchvision.resnet18"),
    "a file": ("timm.resnet18", {"checkpoint_path": "/etc/passwd"}, "argument checkpoint_path of timm.resnet18"),
    "a dict": ("timm.resnet18", {"block_args": {"a": 1}}, "wanted a number, a text or a list of such"),
    "an unknown argument": ("torchvision.resnet18", {"evil": 1}, "cannot be built: TypeError: .*'evil'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_state_dict_that_does_not_fit_is_refused(case: str, tmp_path: Path, resnet: nn.Module) -> None:
    architecture, arguments, says = REFUSED[case]
    torch.save(resnet.state_dict(), tmp_path / "weights")
    with pytest.raises(UnsupportedModel, match=rf"weights: .*{says}"):
        read_network(tmp_path / "weights", trust=False, architecture=architecture, arguments=arguments)


def test_broken_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes((2).to_bytes(8, "little") + b"{]" + bytes(8))
    with pytest.raises(UnsupportedModel, match="weights: a broken safetensors file"):
        read_network(tmp_path / "weights", trust=False)


# -- TorchScript


def _saved(way: str, module: nn.Module, given: Tensor | tuple[Tensor, ...], file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit as a whole
        scripted = torch.jit.script(module) if way == "scripted" else torch.jit.trace(module, given)  # type: ignore[no-untyped-call]
        torch.jit.save(scripted, file)
    return file


@pytest.mark.parametrize("way", ["scripted", "traced"])
def test_torchscript_needs_trust_and_becomes_onnx(way: str, tmp_path: Path, resnet: nn.Module, pictures: Tensor) -> None:
    file = _saved(way, resnet, pictures, tmp_path / "model.pt")
    with pytest.raises(UntrustedModel, match=r"model.pt: .*a TorchScript archive.*--trust"):
        read_network(file, trust=False)
    network = read_network(file, trust=True)
    assert (network.kind, network.loaded, network.module.training) == ("torchscript", True, False)
    wanted = answers(resnet, pictures)
    assert torch.equal(answers(network.module, pictures), wanted)
    assert torch.equal(answers(network.exportable(pictures), pictures), wanted)
    if way == "scripted":  # the other differs no more by now
        got, wanted = onnx_answers(network, pictures)
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_torchscript_without_a_counterpart_is_refused(tmp_path: Path) -> None:
    class Loops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            while bool(x.sum() < 10):
                x = x + 1
            return x

    network = read_network(_saved("scripted", Loops(), torch.ones(1), tmp_path / "model.pt"), trust=True)
    with pytest.raises(UnsupportedModel, match=r"it cannot be followed by torch\.export: "):
        network.exportable(torch.ones(2, 2))


@pytest.mark.parametrize("rows", [1, 3])
def test_torchscript_that_was_traced_for_so_many_rows_says_so(rows: int, tmp_path: Path) -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.cat([x, y]).view(2, int(x.shape[0]), -1)[0] - y

    given = torch.ones(rows, 4), torch.ones(rows, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, that the number is written down
        network = read_network(_saved("traced", Counts(), given, tmp_path / "model.pt"), trust=True)
    with pytest.raises(UnsupportedModel, match=rf"of 1 to 3 rows it answers {rows} alone: tracing wrote that number into it"):
        network.exportable(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(UnsupportedModel, match=r"no answer for each of 1 to 3 rows of \[4\], \[5\]: RuntimeError"):
        network.exportable(torch.zeros(2, 4), torch.zeros(2, 5))


# -- files


def test_a_zip_of_more_members_than_torch_writes_is_refused_by_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = exported(nn.ReLU(), tmp_path / "model.pt2", torch.rand(2, 4))
    script = _saved("scripted", nn.ReLU(), torch.ones(1), tmp_path / "model.pt")
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    for file in (program, script):
        with pytest.raises(UnsupportedModel, match=rf"^{file.name}: a zip of more than 3 members"):
            read_network(file, trust=False)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02", b"not a network", b"PK\x03\x04" + bytes(100)])
def test_a_file_of_no_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    for trust in (False, True):
        with pytest.raises(UnsupportedModel, match=r"^model.pth: "):
            read_network(tmp_path / "model.pth", trust=trust)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"^model\.pth: the MLmodel names it, and it is not there"):
        read_network(Path("/nowhere/model.pth"), trust=False)
