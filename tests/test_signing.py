"""Signatures that are written, compared with what MLflow itself would write."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import Model, ModelSignature, infer_signature, set_signature
from mlflow.models.utils import _Example
from mlflow.types import ParamSchema, Schema

import hostile
from conftest import tensor
from tensign.errors import InvalidConfig, TensignError, UnsupportedModel
from tensign.mlmodel import read_mlmodel
from tensign.notation import parse_param, parse_specs
from tensign.signature import Signature
from tensign.signing import sign

COLUMN = {"type": "long", "name": "a", "required": True}


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("uint8[-1,300,300,3]", [tensor("uint8", [-1, 300, 300, 3])]),
        ("uint8 [?, 300, *, 3]", [tensor("uint8", [-1, 300, -1, 3])]),
        ("image: float32[1]", [tensor("float32", [1], "image")]),
        ("input:0:bool[-1]", [tensor("bool", [-1], "input:0")]),
        ("a:str[-1], b:object[-1]", [tensor("str", [-1], "a"), tensor("object", [-1], "b")]),
        ("double", [{"type": "double", "required": True}]),
        ("a:long,b?:datetime", [COLUMN, {"type": "datetime", "name": "b", "required": False}]),
        (
            "x y:array<array<binary>>",
            [{"type": "array", "items": {"type": "array", "items": {"type": "binary"}}, "name": "x y"}],
        ),
        ("m?:map<any>", [{"type": "map", "values": {"type": "any"}, "name": "m", "required": False}]),
        ("v:sparkml_vector", [{"type": "sparkml_vector", "name": "v"}]),
        (
            "o:object<b?: string, a: array<long>>",
            [
                {
                    "type": "object",
                    "properties": {
                        "a": {"type": "array", "items": {"type": "long"}, "required": True},
                        "b": {"type": "string", "required": False},
                    },
                    "name": "o",
                }
            ],
        ),
        ('{"type": "long", "name": "a", "required": true}', [COLUMN]),
        (f"[{json.dumps(COLUMN)}]", [COLUMN]),
    ],
)
def test_a_spec_is_written_as_mlflow_writes_it(text: str, entries: list[dict[str, Any]]) -> None:
    parsed = parse_specs(text)
    assert json.dumps(parsed) == Schema.from_json(json.dumps(parsed)).to_json()
    assert parsed == [{"required": True, **entry} if "tensor-spec" not in entry else entry for entry in entries]


@pytest.mark.parametrize(
    ("text", "kind", "default"),
    [
        ("t:double=1", "double", 1.0),
        ("t:float=0.5", "float", 0.5),
        ("t : long = 7", "long", 7),
        ("t:integer=-7", "integer", -7),
        ("t:boolean=true", "boolean", True),
        ("t:string=abc=d", "string", "abc=d"),
        ("t:string=5", "string", "5"),
        ('t:string="5"', "string", "5"),
        ("t:string=null", "string", None),
        ("t:datetime=2026-01-02", "datetime", "2026-01-02"),
        ("t:datetime=2026-01-02T03:04:05.000006", "datetime", "2026-01-02T03:04:05.000006"),
        ("t:long[]=[1, 2]", "long", [1, 2]),
        ("t:double[-1]=[1]", "double", [1.0]),
        ("t:string[]=[]", "string", []),
    ],
)
def test_a_param_is_written_as_mlflow_writes_it(text: str, kind: str, default: Any) -> None:
    parsed = parse_param(text)
    assert json.dumps(parsed) == ParamSchema.from_json(json.dumps(parsed)).to_json()
    shape = [-1] if isinstance(default, list) else None
    assert parsed == [{"name": "t", "default": default, "shape": shape, "type": kind}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "type ''"),
        ("uint8", "type 'uint8' is neither a tensor's DTYPE[AXES] nor one of boolean"),
        ("age:lng", "'age:lng': type 'lng'"),
        ("x:", "'x:': type ''"),
        ("float[-1]", "dtype 'float': numpy takes that for float64"),
        ("<U5[-1]", "dtype '<U5'"),
        ("complex64[-1]", "complex64 has no datatype"),
        ("a:uint8[-1,0]", "'a:uint8[-1,0]': axis '0': wanted -1"),
        ("uint8[-2]", "axis '-2'"),
        ("uint8[]", "axis ''"),
        ("x?:uint8[-1]", "a tensor cannot be optional"),
        ("[", "begins as JSON and is none"),
        ('{"a": 1}', "wanted a map with `type`"),
        ("a:object<b>", "property 'b': write NAME: TYPE"),
    ],
)
def test_a_bad_spec_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_specs(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text", ["t", "t:long", "t:lng=1", "t:long=1.5", "t:long=true", "t:binary=a", "t:long[]=1", "t:datetime=x"]
)
def test_a_bad_param_is_named(text: str) -> None:
    with pytest.raises(InvalidConfig, match="param 't"):
        parse_param(text)


NAMES = st.text("abcdef :.", min_size=1, max_size=6).map(str.strip).filter(bool)
TENSORS = st.tuples(
    st.sampled_from(["uint8", "int64", "float16", "float32", "bool", "object"]),
    st.lists(st.integers(1, 9) | st.just(-1), min_size=1, max_size=4),
).map(lambda drawn: f"{drawn[0]}[{','.join(map(str, drawn[1]))}]")
SCALARS = st.sampled_from(["boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "any"])
COLUMNS = st.recursive(
    SCALARS,
    lambda inner: (
        inner.map("array<{}>".format)
        | inner.map("map<{}>".format)
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: f"object<{', '.join(f'p{n}: {kind}' for n, kind in enumerate(kinds))}>"
        )
    ),
    max_leaves=4,
)


def named(kinds: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.dictionaries(NAMES, kinds, min_size=1, max_size=4)
    return kinds | several.map(lambda drawn: ",".join(f"{name}:{kind}" for name, kind in drawn.items()))


@settings(max_examples=200, deadline=None)
@given(named(TENSORS) | named(COLUMNS), named(TENSORS) | named(COLUMNS))
def test_any_signature_is_what_mlflow_writes_and_what_inspect_shows_is_read_again(inputs: str, outputs: str) -> None:
    parts = {"inputs": parse_specs(inputs), "outputs": parse_specs(outputs)}
    written = {part: json.dumps(specs) for part, specs in parts.items()}
    assert ModelSignature.from_dict(written).to_dict() == {**written, "params": None}
    signature = Signature.parse(parts)
    for part, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        again = [parse_specs(f"{spec.name}:{spec}" if spec.named else str(spec)) for spec in specs]
        assert [one for entries in again for one in entries] == parts[part]


MLMODEL = """# by hand
run_id: abc
flavors:
  sklearn: {pickled_model: model.pkl}  # a comment
  python_function:
    env: conda.yaml
    loader_module: mlflow.sklearn

is_signature_from_type_hint: true
of_the_future: [1, {two: 3}]
artifact_path: "quoted"
utc_time_created: 2026-01-02 03:04:05.000006
"""


def test_every_other_line_stays_and_mlflow_reads_what_its_own_set_signature_would_have_set(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        path.mkdir()
        (path / "MLmodel").write_text(MLMODEL)
        (path / "MLmodel").chmod(0o640)
    signed = sign(ours, inputs=["a:long, b?:string"], outputs=["float32[-1,2]"], params=["t:double=0.5"])
    assert signed.changed and set(signed.origins.values()) == {"given"}
    columns, tensors = [Schema.from_json(json.dumps(parse_specs(text))) for text in ("a:long, b?:string", "float32[-1,2]")]
    set_signature(str(theirs), ModelSignature(columns, tensors, ParamSchema.from_json(json.dumps(parse_param("t:double=0.5")))))
    model = Model.load(ours)
    assert model == Model.load(theirs)
    assert model.get_model_info().signature == Model.load(theirs).get_model_info().signature
    text = (ours / "MLmodel").read_text()
    kept = [line for line in MLMODEL.splitlines() if "type_hint" not in line]
    assert [line for line in text.splitlines() if line in kept] == kept
    assert [file.name for file in ours.iterdir()] == ["MLmodel"] and (ours / "MLmodel").stat().st_mode & 0o777 == 0o640


def test_a_signature_is_replaced_only_when_told_to_and_what_is_not_given_is_kept(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("uint8", [-1, 3])], "outputs": [tensor("float32", [-1, 2])]})
    before = (path / "MLmodel").read_bytes()
    with pytest.raises(InvalidConfig, match=r"has a signature: inputs uint8 \[-1,3\].*With --force.*float32 \[-1,5\]"):
        sign(path, outputs=["float32[-1,5]"])
    assert not sign(path, inputs=["uint8[-1,3]"]).changed
    text = sign(path, outputs=["float32[-1,5]"], force=True, dry_run=True).text
    assert (path / "MLmodel").read_bytes() == before
    signed = sign(path / "MLmodel", outputs=["float32[-1,5]"], force=True)
    assert signed.origins == {"inputs": "kept", "outputs": "given"}
    assert (path / "MLmodel").read_text() == text
    assert str(Signature.load(path)) == "uint8 [-1,3] -> float32 [-1,5]"


def test_outputs_that_a_signature_lacks_replace_nothing(mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(signature={"inputs": [tensor("uint8", [-1, 3])]})
    with pytest.raises(InvalidConfig, match="has a signature"):
        sign(path, inputs=["uint8[-1,4]"], outputs=["float32[-1,5]"])
    assert sign(path, inputs=["uint8[-1,3]"], outputs=["float32[-1,5]"]).changed
    assert str(Signature.load(path)) == "uint8 [-1,3] -> float32 [-1,5]"


def test_what_a_link_leads_to_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("flavors: {}\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").symlink_to("../kept")
    sign(tmp_path / "model", inputs=["uint8[-1]"], outputs=["uint8[-1]"])
    assert (tmp_path / "kept").read_text() == "flavors: {}\n"
    assert str(Signature.load(tmp_path / "model")) == "uint8 [-1] -> uint8 [-1]"


@pytest.mark.parametrize("case", hostile.DIRECTORIES, ids=lambda case: case.name)
def test_a_directory_that_is_no_model_is_signed_or_refused(case: hostile.Directory, tmp_path: Path) -> None:
    case.make(tmp_path / "model")
    with contextlib.suppress(TensignError):
        sign(tmp_path / "model", force=True)
        Signature.load(tmp_path / "model")


@pytest.mark.parametrize("signature", [{"inputs": "[{'"}, [], {"inputs": '[{"type": "nonsense"}]'}], ids=str)
def test_a_signature_that_cannot_be_read_is_no_dead_end(signature: Any, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"x": {}}, "signature": signature}))
    with pytest.raises(InvalidConfig, match="one that cannot be used"):
        sign(tmp_path, inputs=["uint8[-1]"], outputs=["uint8[-1]"])
    sign(tmp_path, inputs=["uint8[-1]"], outputs=["uint8[-1]"], force=True)
    assert str(Signature.load(tmp_path)) == "uint8 [-1] -> uint8 [-1]"


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (["uint8[-1]", "a:long"], "some have a name|are tensors"),
        (["uint8[-1]", "float32[-1]"], "need a name each|two columns of one name"),
        (["a:uint8[-1]", "a:uint8[-1]"], "need a name each"),
        (["a:long,long"], "some have a name"),
    ],
)
def test_specs_that_do_not_go_together_are_refused(inputs: list[str], says: str, mlmodel: Callable[..., Path]) -> None:
    path = mlmodel()
    with pytest.raises(UnsupportedModel, match=says):
        sign(path, inputs=inputs, outputs=["float32[-1]"])
    assert read_mlmodel(path).signature is None


def unsigned(path: Path, target: Path) -> Path:
    shutil.copytree(path, target, copy_function=shutil.copyfile)
    document = yaml.safe_load((target / "MLmodel").read_text())
    del document["signature"]
    (target / "MLmodel").write_text(yaml.safe_dump(document))
    return target


def test_inferred_from_the_graph(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    original = fixture_dir("digits-onnx")
    path = unsigned(original, tmp_path / "model")
    assert sign(path).origins == dict.fromkeys(["inputs", "outputs"], "inferred from model.onnx")
    assert (path / "MLmodel").read_text() == (original / "MLmodel").read_text()


def test_inferred_from_the_learner(fixture_dir: Callable[[str], Path], tmp_path: Path) -> None:
    path = unsigned(fixture_dir("digits-multilabel-fastai-2.8"), tmp_path / "model")
    assert sign(path).origins["outputs"] == "inferred from the Learner"
    assert str(Signature.load(path)) == "uint8 [-1,128,128,3] -> float32 [-1,6]"


EXAMPLES = {
    "array": np.zeros((2, 3, 4)),
    "whole numbers": np.zeros((2, 3), int),
    "arrays": {"a": np.zeros((2, 3)), "b": np.array([True, False])},
    "table": pd.DataFrame(
        {"a": [1, 2], "b": [0.5, None], "c": ["x", "y"], "d": [True, False], "e": [[1], []], "f": ["x", None]}
    ),
    "table of objects": pd.DataFrame({"a": [{"b": 1, "c": [0.5]}, {"b": 2}]}),
    "record": {"a": 1, "b": ["x"], "c": {"d": 0.5}},
    "records": [{"a": 1, "b": "x"}, {"a": 2}],
    "list": ["x", "y"],
    "scalar": 5,
    "with params": (np.zeros((1, 2)), {"t": 0.5, "n": 3, "s": "x", "l": [1, 2], "b": True}),
}


@pytest.mark.filterwarnings("ignore")  # MLflow's own: hints, and what its pandas calls deprecate
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))
def test_inferred_from_the_saved_example_as_mlflow_infers_it(example: Any, mlmodel: Callable[..., Path]) -> None:
    saved = _Example(example)
    path = mlmodel(flavors={"sklearn": {}}, saved_input_example_info=saved.info)
    saved.save(str(path))
    data, params = example if isinstance(example, tuple) else (example, None)
    signed = sign(path)
    wanted = infer_signature(data, params=params)
    assert Model.load(path).signature == wanted
    assert signed.origins["inputs"] == "inferred from input_example.json, which tells no dtypes"


@pytest.mark.parametrize(
    ("info", "content", "says"),
    [
        ({}, "", "nothing to infer a signature from .flavors sklearn, no saved input example.; give it: --input"),
        ({"type": "ndarray", "artifact_path": "../x.json"}, "[1]", "which is no file of the directory"),
        ({"type": "ndarray", "artifact_path": "x.json"}, "[1", "x.json: no input example that MLflow wrote: JSONDecodeError"),
        ({"type": "ndarray", "artifact_path": "x.json"}, "[[1], 2]", "x.json: no input example that MLflow wrote: ValueError"),
        ({"type": "dataframe", "artifact_path": "x.json"}, "[1]", "x.json: no input example that MLflow wrote"),
        ({"type": "json_object", "artifact_path": "x.json"}, '[{"a": [1, "b"]}]', "column 'a': values of several types"),
        ({"type": "sparse_matrix_csr", "artifact_path": "x.json"}, "{}", "of a kind .'sparse_matrix_csr'."),
    ],
)
def test_an_example_that_tells_nothing(info: dict[str, Any], content: str, says: str, mlmodel: Callable[..., Path]) -> None:
    path = mlmodel(flavors={"sklearn": {}}, saved_input_example_info=info or None)
    (path / "x.json").write_text(content)
    with pytest.raises(UnsupportedModel, match=says):
        sign(path)
