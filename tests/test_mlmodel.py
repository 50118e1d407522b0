"""MLmodel directories of MLflow 1.x, 2.x and 3.x, and what is wrong with others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature

from conftest import SHARED, tensor
from tensign import document
from tensign.errors import ModelNotFound, UnsupportedModel
from tensign.mlmodel import ModelManifest, read_mlmodel
from tensign.signature import Signature

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
        (b"flavors: [", "not YAML: line 1: did not find expected node content"),
        (b"flavors: {onnx: !!python/object/apply:os.getcwd []}", "not YAML: line 1: could not determine a constructor"),
        (b"\xff\xfe\x00flavors", "not UTF-8 text"),
        (b"", "wanted a YAML map, got NoneType"),
        (b"- flavors\n- signature\n", "wanted a YAML map, got list"),
        (b"just words", "wanted a YAML map, got str"),
        (b"1: 2\nflavors: {}", "wanted names as keys, got 1"),
        (b"flavors: {1: {}}", "wanted `flavors:` as a map of maps, got dict"),
        (b"run_id: 1", "wanted `flavors:` as a map of maps, got NoneType"),
        (b"flavors: [onnx]", "wanted `flavors:` as a map of maps, got list"),
        (b"flavors: {onnx: model.onnx}", "wanted `flavors:` as a map of maps"),
        (b"flavors: {}\nsignature: '[]'", "wanted `signature:` as a map, got str"),
        (b"flavors: {}\nsignature: {inputs: '[{'}", "signature inputs is not JSON"),
        (b"flavors: {}\nsignature: {inputs: '[', outputs: ''}", "signature inputs is not JSON"),
        (b"flavors: {}\nsignature: {params: nonsense}", "signature params is not JSON"),
    ],
)
def test_file_that_mlflow_does_not_write(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_bytes(content)
    with pytest.raises(UnsupportedModel) as caught:
        read_mlmodel(tmp_path).signature  # noqa: B018
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


# Round trips against MLflow itself

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text("abcdefghij-", min_size=1, max_size=12)  # no "_" in front: such keys are MLflow's own, and dropped
SCALAR = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXT | st.datetimes()
JUNK = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME | TEXT, inner, max_size=3), max_leaves=8
)
SIGNATURES = st.sampled_from(
    [
        {"inputs": [tensor("uint8", [-1, 300, 300, 3])], "outputs": [tensor("float32", [-1, 2])], "params": None},
        {"inputs": [tensor("str", [-1], "a"), tensor("int64", [-1, -1], "b")], "outputs": None, "params": None},
        {
            "inputs": [
                {"type": "long", "name": "age", "required": True},
                {"type": "array", "items": {"type": "map", "values": {"type": "any"}}, "name": "\u00e4", "required": False},
                {"type": "object", "properties": {"p": {"type": "double", "required": False}}, "name": "o", "required": True},
            ],
            "outputs": [{"type": "string", "required": True}],
            "params": [{"name": "t", "default": 0.5, "shape": None, "type": "double"}],
        },
        {"inputs": None, "outputs": [{"type": "sparkml_vector", "required": True}], "params": None},
    ]
)
ENV = st.just("conda.yaml") | st.fixed_dictionaries(
    {"conda": st.just("conda.yaml")}, optional={"virtualenv": st.just("e.yaml")}
)
EXAMPLE = {"artifact_path": "input_example.json", "type": "dataframe", "pandas_orient": "split"}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "artifact_path": TEXT,
    "run_id": TEXT,
    "utc_time_created": st.just("2022-01-12 05:17:31.634689"),
    "model_uuid": NAME,
    "mlflow_version": st.sampled_from(["1.30.1", "2.22.5", "3.18.0"]),
    "metadata": st.none() | st.dictionaries(NAME, JUNK, max_size=3),
    "saved_input_example_info": st.just(EXAMPLE),
    "model_size_bytes": st.none() | st.integers(0, 2**40),
    "resources": st.just({"api_version": "1", "databricks": {"function": [{"name": "f"}]}}),
    "auth_policy": st.just({"system_auth_policy": {"resources": []}}),
    "env_vars": st.lists(NAME, max_size=2),
    "prompts": st.none() | st.lists(NAME, max_size=2),
    "model_id": st.none() | st.just("m-1"),
    "databricks_runtime": st.just("15.4"),
}
FLAVOR = st.fixed_dictionaries({}, optional={"env": ENV, "data": TEXT, "code": st.none(), "config": st.none() | JUNK})
FLAVOR_MAPS = st.dictionaries(st.sampled_from(["python_function", "onnx", "fastai"]), FLAVOR, max_size=3)
SIGNED = st.fixed_dictionaries({"signature": SIGNATURES, "hint": st.booleans()})
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(flavors=FLAVOR_MAPS, fields=st.fixed_dictionaries({}, optional=FIELDS), signed=st.none() | SIGNED)
def test_what_mlflow_writes_is_read_and_written_again_as_the_same(
    tmp_path: Path, flavors: dict[str, Any], fields: dict[str, Any], signed: dict[str, Any] | None
) -> None:
    model = Model(flavors=flavors, **fields)
    if signed:
        model.signature = ModelSignature.from_dict(
            {part: specs and json.dumps(specs) for part, specs in signed["signature"].items()}
        )
        model.signature._is_signature_from_type_hint = signed["hint"]
    model.save(tmp_path / "MLmodel")
    manifest = read_mlmodel(tmp_path)
    assert manifest.document == yaml.safe_load(manifest.text) == model.to_dict()
    assert (manifest.signature and dict(manifest.signature)) == (signed and signed["signature"])
    (tmp_path / "MLmodel").write_text(document.dump(manifest.document))
    assert Model.load(tmp_path) == model


@MANY
@given(flavors=FLAVOR_MAPS, fields=st.fixed_dictionaries({}, optional=FIELDS), unknown=st.dictionaries(NAME, JUNK, max_size=3))
def test_what_we_write_mlflow_reads_as_the_same(
    tmp_path: Path, flavors: dict[str, Any], fields: dict[str, Any], unknown: dict[str, Any]
) -> None:
    wanted = {**unknown, "flavors": flavors, **fields}
    (tmp_path / "MLmodel").write_text(document.dump(wanted))
    read = Model.load(tmp_path).to_dict()
    assert {key: read.get(key) for key in wanted} == wanted == read_mlmodel(tmp_path).document
    assert list(read_mlmodel(tmp_path).document) == list(wanted)
    Model.load(tmp_path).save(tmp_path / "MLmodel")
    again = read_mlmodel(tmp_path).document
    assert {key: again.get(key) for key in wanted} == wanted


@MANY
@given(
    st.permutations(
        ["artifact_path: a", "flavors: {onnx: {}}  # kept", "# kept, too\nmetadata:\n  a: &x 1\n  b: *x", "z: '1\n\n  2'"]
    ),
    st.sampled_from(["", "signature:\n  inputs: '[\n\n    ]'\n  outputs: null\n", "signature: null\n", "signature: {a: 1}\n"]),
    st.integers(0, 4),
    SIGNATURES,
)
def test_one_key_is_exchanged_and_every_other_line_stays(
    lines: list[str], old: str, at: int, signature: dict[str, Any]
) -> None:
    around = [f"{line}\n" for line in lines]
    before = "".join([*around[:at], old, *around[at:]])
    after = document.replaced(before, {"signature": signature})
    assert document.parse(after) == {**document.parse(before), "signature": signature}
    assert all(line in after for line in around)


@pytest.mark.parametrize(
    "text",
    ["{flavors: {}, b: 1}", "flavors: &a {}\nsignature: &b {x: 1}\nc: *b", "---\nflavors: {}\n...", "flavors: {}\rb: 1", "{}"],
)
def test_a_key_is_exchanged_where_no_line_is_its_own(text: str) -> None:
    assert document.parse(document.replaced(text, {"signature": {"inputs": None}})) == {
        **document.parse(text),
        "signature": {"inputs": None},
    }
    assert list(document.parse(document.replaced(text, {"new": 1})))[:2] == list({**document.parse(text), "new": 1})[:2]


@MANY
@given(st.lists(st.sampled_from([*"{}[]:,-?|>\n'\"#&*%~", "  ", "a", "1", "<<", "---", "&a", "*a"]), max_size=20).map("".join))
def test_any_text_that_both_can_read_is_read_as_mlflow_reads_it(text: str) -> None:
    """Without tags, which MLflow never writes and of which the C library and the Python one read a bare "!" in two ways."""
    with contextlib.suppress(document.NotYaml, yaml.YAMLError, ValueError, AttributeError):
        assert document.parse(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "parts",
    [
        {"inputs": []},
        {"inputs": 1},
        {"inputs": {"type": "long"}},
        {"inputs": [tensor("uint8", [1]), {"type": "long"}]},
        {"inputs": [tensor("uint8", [1], "a"), tensor("uint8", [1])]},
        {"inputs": [{"type": "long", "name": "a"}, {"type": "long"}]},
        {"inputs": [tensor("uint8", [1]), tensor("uint8", [1])]},
        {"inputs": [{"type": "long", "required": False}]},
        {"inputs": [tensor("<U5", [-1])]},
        {"inputs": [{"type": "int64"}]},
        {"params": [{"name": "a", "type": "long", "default": 1}] * 2},
    ],
    ids=str,
)
def test_a_signature_that_mlflow_refuses_is_refused(parts: dict[str, Any], mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("uint8", [1])], "outputs": [tensor("uint8", [1])], **parts})
    with pytest.raises((MlflowException, TypeError, ValueError, AttributeError)):
        Model.load(path)
    with pytest.raises(UnsupportedModel, match="signature"):
        Signature.load(path)


@pytest.mark.parametrize("path", ["", "MLmodel"])
def test_path_may_name_the_file_itself(path: str, mlmodel: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = mlmodel()
    assert read_mlmodel(directory / path).path == directory
    monkeypatch.chdir(directory)
    assert read_mlmodel(path).name == "model"


@pytest.mark.parametrize("env", ["conda.yaml", {"conda": "conda.yaml"}, {"conda": "conda.yaml", "virtualenv": None}])
def test_env_is_one_map_in_either_form(env: object, mlmodel: Callable[..., Path]) -> None:
    assert read_mlmodel(mlmodel(flavors={"python_function": {"env": env}})).env == {"conda": "conda.yaml"}
    assert read_mlmodel(mlmodel()).env == {}
