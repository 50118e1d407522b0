"""ONNX files that anybody may have written: read whole, or refused with the reason, never followed out of their directory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_networks import saved, small
from tensign.errors import UnsupportedModel

pytest.importorskip("torch")

from tensign_converters.declared.declaration import Declaration
from tensign_converters.onnxfiles.file import lifted, nodes, opset, read_onnx
from tensign_converters.onnxfiles.original import original_answers


def outside(file: Path, model: ModelProto | None = None) -> Path:
    """Saved with all weights in a file beside it."""
    onnx.save(model or small(), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return file


def pointing(file: Path, **said: str) -> Path:
    """The same, with other words of where the first tensor lies."""
    model = onnx.load(outside(file), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = said.get(entry.key, entry.value)
    file.write_bytes(model.SerializeToString())
    return file


def calling(*bodies: list[str], external: str = "") -> Callable[[Path], Path]:
    """A network that calls the first of some functions, each of which calls others, "F1", or operators, in a row."""

    def write(file: Path) -> Path:
        model = small()
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
        for number, calls in enumerate(bodies):
            chain = ["a", *(f"t{step}" for step in range(len(calls) - 1)), "b"]
            made = [
                helper.make_node(call, [chain[step]], [chain[step + 1]], domain="mine" if call.startswith("F") else "")
                for step, call in enumerate(calls)
            ]
            if external:  # in a branch of one of its nodes
                tensor = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
                onnx.external_data_helper.set_external_data(tensor, external)
                tensor.ClearField("raw_data")
                gives = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [4])
                branch = helper.make_graph([], "branch", [], [gives], [tensor])
                made.append(helper.make_node("If", ["a"], ["unused"], then_branch=branch, else_branch=branch))
            model.functions.append(helper.make_function("mine", f"F{number}", ["a"], ["b"], made, imports))
        model.opset_import.append(imports[1])
        model.graph.node[1].CopyFrom(helper.make_node("F0", ["c"], ["r"], domain="mine"))
        file.write_bytes(model.SerializeToString())
        return file

    return write


def branching(version: int, node: onnx.NodeProto) -> ModelProto:
    """An If with that node, from "c" to "s", in both branches."""
    model = small(opset=version)
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("s", TensorProto.FLOAT, None)])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node[1].CopyFrom(helper.make_node("If", ["yes"], ["r"], then_branch=branch, else_branch=branch))
    return model


def foreign(file: Path) -> Path:
    model = small()
    model.graph.node[1].CopyFrom(helper.make_node("Swish", ["c"], ["r"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return saved(model, file)


def foreign_in_a_branch(file: Path) -> Path:
    model = branching(17, helper.make_node("Swish", ["c"], ["s"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    file.write_bytes(model.SerializeToString())
    return file


def bytes_of(content: bytes) -> Callable[[Path], Path]:
    def write(file: Path) -> Path:
        file.write_bytes(content)
        return file

    return write


def unversioned(file: Path) -> Path:
    model = small()
    del model.opset_import[:]
    return bytes_of(model.SerializeToString())(file)


def linked(file: Path) -> Path:
    outside(file)
    (file.parent / "weights.bin").unlink()
    (file.parent / "weights.bin").symlink_to(file.parent.parent / "secret")
    return file


def piped(file: Path) -> Path:
    outside(file)
    (file.parent / "weights.bin").unlink()
    os.mkfifo(file.parent / "weights.bin")
    return file


def twice(file: Path) -> Path:
    model = onnx.load(outside(file), load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="../secret")
    file.write_bytes(model.SerializeToString())
    return file


def sparse(file: Path) -> Path:
    model = small()
    values = numpy_helper.from_array(np.ones(4, np.float32), "sparse")
    onnx.external_data_helper.set_external_data(values, "../secret")
    values.ClearField("raw_data")
    indices = numpy_helper.from_array(np.arange(4), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    file.write_bytes(model.SerializeToString())
    return file


def hole(file: Path) -> Path:
    with file.open("wb") as stream:
        stream.truncate(1 << 31)
    return file


def holes_beside(file: Path) -> Path:
    outside(file)
    with (file.parent / "weights.bin").open("ab") as stream:
        stream.truncate(1 << 30)
    model = onnx.load(file, load_external_data=False)
    for tensor in model.graph.initializer:
        del tensor.external_data[1:]
    file.write_bytes(model.SerializeToString())
    return file


HOSTILE: list[tuple[str, Callable[[Path], Path], str]] = [
    ("traversal", lambda file: pointing(file, location="../secret"), 'external data "../secret" leads out of the directory'),
    ("absolute", lambda file: pointing(file, location="/etc/passwd"), '"/etc/passwd" leads out of the directory'),
    ("roundabout", lambda file: pointing(file, location="a/../../secret"), "leads out of the directory of the file"),
    ("a link out", linked, 'external data "weights.bin" leads out of the directory of the file'),
    ("a pipe", piped, 'external data "weights.bin" is no file beside it'),
    ("nothing there", lambda file: pointing(file, location="none.bin"), 'external data "none.bin" is no file beside it'),
    ("the directory", lambda file: pointing(file, location="."), 'external data "." is no file beside it'),
    ("no place", lambda file: pointing(file, location=""), 'external data "" is no file beside it'),
    ("two places", twice, "says twice where its external data is"),
    ("in a sparse tensor", sparse, 'external data "../secret" leads out of the directory'),
    ("in a function", calling(["Relu"], external="../secret"), 'external data "../secret" leads out of the directory'),
    ("behind the end", lambda file: pointing(file, offset="9999999", length="0"), "is shorter than"),
    (
        "longer than there is",
        lambda file: pointing(file, length="99999"),
        "no ONNX file that can be read: External data length",
    ),
    ("a negative offset", lambda file: pointing(file, offset="-4"), "no ONNX file that can be read: External data offset"),
    ("no number", lambda file: pointing(file, offset="4; rm"), "no ONNX file that can be read: invalid literal"),
    ("2 GB", hole, "2147483648 bytes; one file holds less than"),
    ("2 GB beside it", holes_beside, "bytes with its external data; one file holds less than"),
    ("operators of a library", foreign, "operators that only a library of their own can run: com.example.Swish"),
    ("operators in a branch", foreign_in_a_branch, "operators that only a library of their own can run: com.example.Swish"),
    ("a function of itself", calling(["F0", "Relu"]), "its functions, written out, make 200"),
    ("functions in a circle", calling(["F1"], ["F0"]), "its functions, written out, make 200"),
    ("functions that double", calling(*([f"F{n + 1}"] * 2 for n in range(30)), ["Relu"]), "written out, make 1073741828 nodes"),
    ("nothing", bytes_of(b""), "network.onnx is no ONNX file: it has no graph"),
    ("noise", bytes_of(bytes(range(256)) * 9), "network.onnx is no ONNX file that can be read"),
    ("text", bytes_of(b'{"graph": {}}'), "network.onnx is no ONNX file that can be read"),
    ("a picture", bytes_of(b"\x89PNG\r\n\x1a\n" + bytes(99)), "network.onnx is no ONNX file that can be read"),
    ("half a file", lambda file: bytes_of(small().SerializeToString()[:900])(file), "is no ONNX file that can be read"),
    ("no versions", unversioned, "network.onnx is no ONNX file that can be read"),
]


@pytest.mark.parametrize(("write", "wanted"), [each[1:] for each in HOSTILE], ids=[each[0] for each in HOSTILE])
def test_hostile_files_are_refused_with_the_reason(tmp_path: Path, write: Callable[[Path], Path], wanted: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    (tmp_path / "model").mkdir()
    file = write(tmp_path / "model" / "network.onnx")
    for read in (read_onnx, lambda file: original_answers(file, Declaration())):
        with pytest.raises(UnsupportedModel, match=re.escape(wanted)):
            read(file)


def test_a_directory_and_what_is_not_there(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(UnsupportedModel, match="is no ONNX file that can be read"):
            read_onnx(file)


def test_the_name_does_not_say_how_it_is_read(tmp_path: Path) -> None:
    assert len(read_onnx(saved(small(), tmp_path / "network.onnx").rename(tmp_path / "network.json")).graph.node) == 5


def test_external_data_is_read_in(tmp_path: Path) -> None:
    model = read_onnx(outside(tmp_path / "network.onnx"))
    (tmp_path / "weights.bin").unlink()
    assert not [tensor for tensor in model.graph.initializer if tensor.external_data]
    for tensor, was in zip(model.graph.initializer, small().graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(was))


def test_functions_are_written_out(tmp_path: Path) -> None:
    model = read_onnx(calling(["F1", "Relu"], ["Neg", "Abs"])(tmp_path / "network.onnx"))
    assert [node.op_type for node in nodes(model.graph)] == [
        "Conv",
        "Neg",
        "Abs",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    assert not model.functions and [each.domain for each in model.opset_import] == [""]


def test_notes_of_its_maker_and_old_ways_are_dropped(tmp_path: Path) -> None:
    model = small(opset=11)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model.graph.node[0].doc_string = "/home/somebody/train.py"
    model.graph.node[0].metadata_props.add(key="stack", value="/home/somebody/train.py")
    model.graph.doc_string = "/home/somebody"
    read = lifted(read_onnx(saved(model, tmp_path / "network.onnx")))
    assert [value.name for value in read.graph.input] == ["x"]
    assert (opset(read), read.ir_version) == (20, 10)
    assert b"somebody/" not in read.SerializeToString()


def test_outputs_without_a_shape_are_read(tmp_path: Path) -> None:
    model = small()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    (tmp_path / "network.onnx").write_bytes(model.SerializeToString())
    shape = read_onnx(tmp_path / "network.onnx").graph.output[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [1, 5]


@pytest.mark.parametrize(("came", "stays"), [(7, 20), (11, 20), (13, 20), (20, 20), (21, 21), (23, 23)])
def test_opsets_are_raised_to_ours(came: int, stays: int) -> None:
    model = lifted(small(opset=came))
    assert opset(model) == stays
    onnx.checker.check_model(model, full_check=True)


def test_what_cannot_be_raised_stays_unless_it_is_too_old() -> None:
    node = helper.make_node("Relu", ["c"], ["s"])
    assert opset(lifted(branching(11, node))) == 11
    with pytest.raises(UnsupportedModel, match="its opset is 10; wanted 11 or later"):
        lifted(branching(10, node))
    upsampling = small(opset=8)
    scales: Any = [1.0, 1.0, 2.0, 2.0]
    upsampling.graph.node[1].CopyFrom(helper.make_node("ATen", ["c"], ["r"], scales=scales))
    with pytest.raises(UnsupportedModel, match="its opset 8 cannot be raised to 20: "):
        lifted(upsampling)
