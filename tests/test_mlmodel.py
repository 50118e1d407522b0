"""MLmodel directories of MLflow 1.x, 2.x and 3.x, and what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import SHARED, tensor
from tensign.errors import ModelNotFound, UnsupportedModel
from tensign.mlmodel import ModelManifest, read_mlmodel

FLAVORS = {
    "digits-multilabel-fastai-2.8": "fastai",
    "digits-onnx": "onnx",
    "digits-pytorch-mlflow2": "pytorch",
    "digits-pytorch-mlflow3": "pytorch",
    "faces-fastai-2.4.1": "fastai",
    "faces-fastai-2.7.19": "fastai",
    "faces-fastai-2.8": "fastai",
    "heart-sklearn": "sklearn",
    "heart-sklearn-skops": "sklearn",
}


def seed(name: str) -> ModelManifest:
    path = SHARED / "seeds" / "mlmodels" / name
    if not path.is_dir():
        pytest.skip(f"shared/seeds/mlmodels/{name} is not beside this checkout")
    return read_mlmodel(path)


def test_classifier_written_by_mlflow_1() -> None:
    manifest = seed("classifier")
    assert manifest.name == "classifier"
    assert manifest.flavors["fastai"] == {"data": "model.fastai", "fastai_version": "2.4.1"}
    assert manifest.flavors["python_function"]["env"] == "conda.yaml"
    assert manifest.signature == {
        "inputs": [tensor("uint8", [-1, 300, 300, 3])],
        "outputs": [tensor("float32", [-1, 2])],
        "params": None,
    }


def test_heart_written_by_mlflow_2() -> None:
    manifest = seed("heart")
    assert manifest.name == "pipeline"
    assert manifest.flavors["sklearn"]["code"] is None
    assert manifest.flavors["python_function"]["env"] == {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
    assert manifest.signature is not None
    assert len(manifest.signature["inputs"]) == 13
    assert manifest.signature["inputs"][12] == {"name": "thal", "type": "string"}
    assert manifest.signature["outputs"] == [{"name": "target", "type": "long"}]


@pytest.mark.parametrize(("name", "flavor"), FLAVORS.items())
def test_trained_fixture(name: str, flavor: str, fixture_dir: Callable[[str], Path]) -> None:
    manifest = read_mlmodel(fixture_dir(name))
    assert set(manifest.flavors) == {"python_function", flavor}
    assert manifest.signature is not None
    assert manifest.signature["inputs"] and manifest.signature["outputs"]
    assert len(manifest.digest) == 64


def test_no_fixture_is_left_out(fixture_dir: Callable[[str], Path]) -> None:
    assert {file.parent.name for file in fixture_dir(".").glob("*/MLmodel")} == set(FLAVORS)


@pytest.mark.parametrize("env", ["conda.yaml", {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}])
def test_both_forms_of_env_are_kept(env: object, mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(flavors={"python_function": {"env": env, "loader_module": "x"}})
    assert read_mlmodel(path).flavors["python_function"]["env"] == env


def test_unknown_keys_are_kept(mlmodel: Callable[..., Path]) -> None:
    manifest = read_mlmodel(mlmodel(prompts=None, auth_policy={"system": ["x"]}, of_the_future=[1, 2]))
    assert manifest.document["prompts"] is None
    assert manifest.document["auth_policy"] == {"system": ["x"]}
    assert manifest.document["of_the_future"] == [1, 2]


def test_signature_folded_over_lines(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(
        "flavors: {onnx: {}}\n"
        "signature:\n"
        '  inputs: \'[{"type": "tensor", "tensor-spec": {"dtype": "float32",\n'
        '    "shape": [-1, 3]}}]\'\n'
        "  outputs: >-\n"
        '    [{"type": "tensor",\n'
        '      "tensor-spec": {"dtype": "int64", "shape": [-1]}}]\n'
    )
    signature = read_mlmodel(tmp_path).signature
    assert signature == {"inputs": [tensor("float32", [-1, 3])], "outputs": [tensor("int64", [-1])], "params": None}


def test_signature_that_is_not_a_string_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {onnx: {}}\nsignature: {inputs: [{type: double}]}\n")
    assert read_mlmodel(tmp_path).signature == {"inputs": [{"type": "double"}], "outputs": None, "params": None}


@pytest.mark.parametrize("text", ["flavors: {}", "flavors: {}\nsignature:", "flavors: {}\nsignature: null"])
def test_model_without_a_signature(text: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(text)
    manifest = read_mlmodel(tmp_path)
    assert manifest.signature is None
    assert manifest.metadata == {}


def test_name_is_the_last_part_of_the_artifact_path_else_the_directory(mlmodel: Callable[..., Path]) -> None:
    assert read_mlmodel(mlmodel("here", artifact_path="runs/7/faces")).name == "faces"
    assert read_mlmodel(mlmodel("there", artifact_path=None)).name == "there"


def test_path_may_be_text(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel()
    assert read_mlmodel(str(path)).path == path


@pytest.mark.parametrize("where", ["nowhere", "empty", "empty/file"])
def test_no_mlmodel_at_that_path(where: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").write_text("")
    with pytest.raises(ModelNotFound, match=f"{where}: no MLmodel file there; give the directory that MLflow wrote"):
        read_mlmodel(tmp_path / where)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"flavors: [", "not YAML: line 1: expected the node content"),
        (b"flavors: {onnx: !!python/object/apply:os.getcwd []}", "not YAML: line 1: could not determine a constructor"),
        (b"\xff\xfe\x00flavors", "not UTF-8 text"),
        (b"", "wanted a YAML map, got NoneType"),
        (b"- flavors\n- signature\n", "wanted a YAML map, got list"),
        (b"just words", "wanted a YAML map, got str"),
        (b"run_id: 1", "wanted `flavors:` as a map of maps, got NoneType"),
        (b"flavors: [onnx]", "wanted `flavors:` as a map of maps, got list"),
        (b"flavors: {onnx: model.onnx}", "wanted `flavors:` as a map of maps"),
        (b"flavors: {}\nsignature: '[]'", "wanted `signature:` as a map, got str"),
        (b"flavors: {}\nsignature: {inputs: '[{'}", "signature inputs is not JSON"),
        (b"flavors: {}\nsignature: {inputs: '[]', outputs: ''}", "signature outputs is not JSON"),
        (b"flavors: {}\nsignature: {params: nonsense}", "signature params is not JSON"),
    ],
)
def test_file_that_mlflow_does_not_write(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_bytes(content)
    with pytest.raises(UnsupportedModel) as caught:
        read_mlmodel(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'MLmodel'}: ")
    assert text in str(caught.value)


def test_digest_is_stable_wherever_the_directory_lies(mlmodel: Callable[..., Path]) -> None:
    here, there = mlmodel("here"), mlmodel("there")
    for path, names in ((here, ("a", "b")), (there, ("b", "a"))):
        for name in names:
            (path / name).write_text(name)
    assert read_mlmodel(here).digest == read_mlmodel(here).digest == read_mlmodel(there).digest


def change_content(path: Path) -> None:
    (path / "data" / "weights").write_bytes(b"\1")


def change_name(path: Path) -> None:
    (path / "data" / "weights").rename(path / "data" / "other")


def change_folder(path: Path) -> None:
    (path / "data").rename(path / "other")


def add_file(path: Path) -> None:
    (path / "data" / "empty").touch()


def swap_files(path: Path) -> None:
    (path / "data" / "weights").write_bytes(b"labels")
    (path / "data" / "labels").write_bytes(b"\0")


@pytest.mark.parametrize("change", [change_content, change_name, change_folder, add_file, swap_files])
def test_digest_tells_of_every_change(change: Callable[[Path], None], mlmodel: Callable[..., Path]) -> None:
    path = mlmodel()
    (path / "data").mkdir()
    (path / "data" / "weights").write_bytes(b"\0")
    (path / "data" / "labels").write_bytes(b"labels")
    before = read_mlmodel(path).digest
    change(path)
    assert read_mlmodel(path).digest != before
