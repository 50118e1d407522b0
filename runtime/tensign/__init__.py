"""tensign: serves MLflow MLmodel directories of vision models, driven by their tensor signature.

A request's way: rpc/service, rpc/codec, model (signature, preprocess), batcher, engines/onnx, and back. A file imports only
lower layers; tests/test_layers.py lists them. `pyfunc` is MLflow's way in.
"""

from typing import TYPE_CHECKING, Any

from tensign import errors
from tensign.version import __version__

if TYPE_CHECKING:
    from tensign.client import Client
    from tensign.mlmodel import ModelManifest, read_mlmodel
    from tensign.model import Model
    from tensign.preprocess import PreprocessSpec
    from tensign.signature import Signature, TensorSpec

__all__ = [
    "Client",
    "Model",
    "ModelManifest",
    "PreprocessSpec",
    "Signature",
    "TensorSpec",
    "__version__",
    "errors",
    "read_mlmodel",
]

_HOMES = {
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
    if name not in _HOMES:
        raise AttributeError(f"module 'tensign' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"tensign.{_HOMES[name]}"), name)
