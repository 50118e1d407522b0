"""What of the options `serve` was given does nothing for these models, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tensign.config import ModelConfig, ServerConfig
from tensign.model import Model


def remarks(models: Sequence[Model], config: ModelConfig, server: ServerConfig) -> Iterator[str]:
    """A line for each option in vain. config: what all of the models were loaded with."""
    if not any(model.device.startswith("cuda") for model in models):
        idle = {
            "--device-memory": server.device_memory_bytes is not None,
            "--cuda-shared-memory": server.cuda_shared_memory,
        }
        yield from (f"{option} does nothing: no model runs on a GPU" for option, given in idle.items() if given)
    for model in models if config.gpu_decoding else ():
        if not model.plan.image:
            yield f"--gpu-decoding does nothing for {model.name}: it takes no encoded pictures"
