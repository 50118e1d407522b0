"""The MLmodel directory as MLflow and MLServer get it, who run it through MLflow's python_function."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from compare.rival import Stage


def laid_out(stage: Stage) -> Path:
    """A copy in the stage's folder.

    Raw pictures: the same MLmodel, with the threads that its `onnx` flavor is to use. Encoded ones, which that flavor cannot
    decode: the same graph behind a loader with one binary column.
    """
    copy = stage.folder / "model"
    shutil.copytree(stage.model, copy)
    document = yaml.safe_load((copy / "MLmodel").read_text())
    if stage.encoded:
        document["flavors"] = {"python_function": {"data": "model.onnx", "loader_module": "pyfunc_loader"}}
        document["signature"]["inputs"] = json.dumps([{"name": "image", "type": "binary", "required": True}])
        del document["metadata"]
    else:
        document["flavors"]["onnx"]["onnx_session_options"] = {
            "intra_op_num_threads": stage.threads,
            "extra_session_config": {"session.intra_op.allow_spinning": "0"},
        }
    (copy / "MLmodel").write_text(yaml.safe_dump(document))
    return copy
