"""Which of the server's environment variables a worker gets: those that libraries need to run, none that may hold a secret."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = frozenset(
    "PATH HOME USER LOGNAME LANG LANGUAGE TZ TMPDIR VIRTUAL_ENV CONDA_PREFIX LD_LIBRARY_PATH LD_PRELOAD"
    " HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE TRANSFORMERS_CACHE TRANSFORMERS_OFFLINE TORCH_HOME FASTAI_HOME MPLCONFIGDIR"
    " SCIKIT_LEARN_DATA NLTK_DATA".split()
)
_BEGINNINGS = ("LC_", "PYTHON", "XDG_", "CUDA_", "CUBLAS_", "NVIDIA_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_")
_NEVER = {"PYTHONHOME", "PYTHONINSPECT", "PYTHONSTARTUP"}  # the server's Python may be another one
VISIBLE = "CUDA_VISIBLE_DEVICES"
_PICKLES = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def of_worker(environment: Mapping[str, str], *, trust: bool, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """trust: MLflow may unpickle; more: what the server itself says on top."""
    kept = {
        name: value
        for name, value in environment.items()
        if (name in _NAMES or name.startswith(_BEGINNINGS)) and name not in _NEVER
    }
    return {**kept, **({_PICKLES: "true"} if trust else {}), **(more or {})}
