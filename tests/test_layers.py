"""Imports run one way, and the light install stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parents[1] / "runtime" / "tensign"
CONVERTERS = RUNTIME.parents[1] / "converters" / "tensign_converters"

LAYERS = (
    {"errors", "version", "document", "form", "turns", "jpegheader", "coefficients", "kernels", "_pb"},
    {"datatypes", "config", "mlmodel", "decode", "buckets", "ceiling", "metrics", "classification", "budget", "doctor"}
    | {"devicememory", "resample"},
    {"coltypes", "hoststeps", "notation", "admission", "jsontext", "regions", "crossover", "nvimagecodec"},
    {"coltext", "preprocess", "gpudecoding"},
    {"values"},
    {"params"},
    {"specs"},
    {"forms"},
    {"signature"},
    {"choice", "request", "engines"},
    {"plan", "example", "savedexample", "binding", "images"},
    {"slots", "batching", "conversion", "inspection", "placement", "ledger", "queue", "pace"},
    {"lane", "warmup", "room"},
    {"batcher", "signing"},
    {"model"},
    {"repository", "pyfunc", "proof"},
    {"rpc", "http", "tuning"},
    {"frontends"},
    {"server"},
    {"client", "child", "testing", "results"},
    {"bench"},
    {"demo"},
    {"cli", "mlflow"},
    {"__main__"},
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

# A library that only these files may import; in the engines, when they are used.
HOMES = {
    "grpc": {"rpc", "client"},
    "grpc_health": {"rpc"},
    "grpc_reflection": {"rpc"},
    "google": {"rpc", "_pb"},
    "starlette": {"http"},
    "uvicorn": {"http"},
    "prometheus_client": {"http"},
    "onnxruntime": {"engines"},
    "torch": {"engines"},
    "fastai": {"engines"},
    "sklearn": {"engines"},
    "skops": {"engines"},
    "pandas": {"engines", "http"},
    "mlflow": {"mlflow"},
    "PIL": {"client", "coefficients", "crossover", "decode", "hoststeps", "preprocess", "proof", "resample"},
    "simplejpeg": {"decode"},
    "numba": {"kernels"},
    "nvidia": {"nvimagecodec"},
    "pyarrow": {"results", "http"},
    "yaml": {"document"},
    "matplotlib": {"bench", "proof"},
    "typer": {"cli"},
    "tensign_converters": {"mlflow"},
}

SOURCES = sorted(path for path in RUNTIME.rglob("*.py") if path.name != "__init__.py" or path.parent != RUNTIME)


def imports(path: Path) -> list[str]:
    """Dotted names of everything a file imports, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(RUNTIME)))
def test_a_file_imports_only_lower_layers(path: Path) -> None:
    here = path.relative_to(RUNTIME).parts[0].removesuffix(".py")
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "tensign":
            there = rest[0]
            assert here == there or LAYER_OF[there] < LAYER_OF[here], f"{here} imports {there}"
        elif top in HOMES:
            assert here in HOMES[top], f"{here} imports {top}"


def test_every_module_has_a_layer() -> None:
    modules = {
        path.name.removesuffix(".py") for path in RUNTIME.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules - {"__init__"} == set(LAYER_OF)


def test_only_the_learner_file_of_the_converters_imports_fastai() -> None:
    importers = {
        path.name for path in CONVERTERS.rglob("*.py") if any(name.split(".")[0] == "fastai" for name in imports(path))
    }
    assert importers == {"learner.py"}


PACKAGES = ("declared", "pickles", "pictures", "learners", "networks", "onnxfiles", "tables", "precision")  # of the converters
MAY_IMPORT = {
    "declared": {"pictures"},
    "learners": {"pickles", "pictures"},
    "networks": {"declared", "pickles", "pictures"},
    "onnxfiles": {"declared"},
}
ABOVE = {"source", "convert", "package", "confined", "live", "__main__"}  # what puts the packages to use


def test_packages_of_the_converters_import_what_lies_below() -> None:
    for path in CONVERTERS.rglob("*/*.py"):
        here = path.parent.name
        tops = {name.split(".")[1] for name in imports(path) if name.startswith("tensign_converters.")}
        for there in tops - {here}:
            allowed = there not in ABOVE and (there not in PACKAGES or there in MAY_IMPORT.get(here, set()))
            assert allowed, f"{here}/{path.name} imports {there}"


@pytest.mark.parametrize(
    "module", ["tensign", "tensign.signature", "tensign.mlmodel", "tensign.mlflow", "tensign_converters.convert"]
)
def test_importing_loads_none_of_the_heavy_libraries(module: str) -> None:
    heavy = {"grpc", "starlette", "uvicorn", "prometheus_client", "torch", "onnxruntime", "fastai", "onnx", "mlflow", "numba"}
    program = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
IN_WORKERS = {"torch.py", "torchdevice.py", "ways.py", "fastai.py", "sklearn.py", "pyfunc.py"}
IN_WORKERS |= {"answers.py", "code.py", "modelinput.py", "hosted.py"}


def test_pickle_is_only_in_the_worker() -> None:
    """What a worker imports is nowhere imported by the process that starts it."""
    ours = [path for path in SOURCES if path.parent.name != "engines" or path.name not in IN_WORKERS]
    for path in ours:
        names = imports(path)
        assert not {name.split(".")[0] for name in names} & PICKLES
        in_workers = {f"tensign.engines.{name.removesuffix('.py')}" for name in IN_WORKERS}
        assert not [name for name in names if name in in_workers or name.rpartition(".")[0] in in_workers]


@pytest.mark.parametrize(
    "name",
    sorted(
        {"__init__.py", "channel.py", "arena.py", "packing.py", "faults.py", *IN_WORKERS}
        | {"../errors.py", "../__init__.py", "../version.py"}
    ),
)
def test_what_a_worker_imports_is_python_3_8(name: str) -> None:
    ast.parse((RUNTIME / "engines" / name).read_text(), feature_version=(3, 8))
