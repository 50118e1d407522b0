"""tensign: serves MLflow MLmodel directories of vision models, driven by their tensor signature.

`Client` talks to a server, `Model` runs a model in this process, `tensign.testing.serving` starts a server inside a test;
what goes wrong is in `tensign.errors`. Public is what `__all__` names, modules included; anything else may change unannounced.

For who reads the code: a request's way is rpc/service, rpc/codec, model (signature, preprocess), batcher, engines/onnx, and
back. A file imports only lower layers; tests/test_layers.py lists them. `tensign.pyfunc` is MLflow's way into a model that
`tensign.mlflow` or a conversion wrote.
"""

from typing import TYPE_CHECKING, Any

from tensign import errors
from tensign.version import __version__

if TYPE_CHECKING:
    from tensign import classification, client, config, conversion, mlflow, mlmodel, model, preprocess, signature, testing
    from tensign.client import AsyncClient, Client
    from tensign.mlmodel import ModelManifest, read_mlmodel
    from tensign.model import Model
    from tensign.preprocess import PreprocessSpec
    from tensign.signature import Signature, TensorSpec

__all__ = [
    "AsyncClient",
    "Client",
    "Model",
    "ModelManifest",
    "PreprocessSpec",
    "Signature",
    "TensorSpec",
    "__version__",
    "classification",
    "client",
    "config",
    "conversion",
    "errors",
    "mlflow",
    "mlmodel",
    "model",
    "preprocess",
    "read_mlmodel",
    "signature",
    "testing",
]

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "Model": "model",
    "ModelManifest": "mlmodel",
    "PreprocessSpec": "preprocess",
    "Signature": "signature",
    "TensorSpec": "signature",
    "read_mlmodel": "mlmodel",
}


def __getattr__(name: str) -> Any:
    """Imports a public name's module on first use, so that `import tensign` stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'tensign' has no attribute '{name}'")
    from importlib import import_module

    home = import_module(f"tensign.{_HOMES.get(name, name)}")
    value = globals()[name] = getattr(home, name) if name in _HOMES else home
    return value
