"""What a pickle may name and get: classes of networks by their exact home, a few pure functions; and where things moved.

Everything else stays a record. A class counts only where the installed library itself defines it under that very name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from tensign_converters.pickles import stock

# Modules whose nn.Module classes may be rebuilt: their forwards compute, and look up nothing by names that a file gives.
_HOMES = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        "activation", "batchnorm", "channelshuffle", "container", "conv", "dropout", "flatten", "fold", "instancenorm",
        "linear", "normalization", "padding", "pixelshuffle", "pooling", "transformer", "upsampling",
    )
) | {"fastai.layers", "fastai.vision.learner", "fastai.vision.models.unet", "fastai.vision.models.xresnet"}  # fmt: skip
_LIBRARIES = ("torchvision.models.", "torchvision.ops.", "timm.models.", "timm.layers.")
_DENIED = frozenset({"fastai.layers.Debugger", "fastai.layers.ParameterModule"})  # starts a debugger; has no forward

MOVED = {  # the name in an older file -> today's, a module (with its dot) or a class; the longest that fits counts
    "fastai2.": "fastai.",
    "fastai.vision.models.unet.": "fastai.vision.models.unet.",
    "fastcore.dispatch.": "fasttransform.dispatch.",
    "fastcore.transform.": "fasttransform.transform.",
    "fastcore.utils.": "fastcore.basics.",
    "fastai.data.pipeline.": "fasttransform.transform.",
    "fastai.data.transform.": "fasttransform.transform.",
    "fastai.core.": "fastcore.foundation.",
    "fastai.test.": "fastcore.test.",
    "local.": "fastai.",
    "numpy.core.": "numpy._core.",
    "pathlib._local.": "pathlib.",
    "timm.models.layers.": "timm.layers.",
    "timm.models.efficientnet_blocks.": "timm.models._efficientnet_blocks.",
    "timm.models.features.": "timm.models._features.",
    "timm.models.layers.activations.": "timm.layers.activations.",
    "torch.nn.backends.": "torch.nn.modules.",
    "torch.nn.modules.linear._LinearWithBias": "torch.nn.modules.linear.NonDynamicallyQuantizableLinear",
    "torchvision.models.mobilenet.": "torchvision.models.mobilenetv2.",
    "torchvision.models.mobilenet.ConvBNReLU": "torchvision.ops.misc.Conv2dNormActivation",
    "torchvision.models.mobilenetv2.ConvBNReLU": "torchvision.ops.misc.Conv2dNormActivation",
    "torchvision.models.mobilenetv2.ConvBNActivation": "torchvision.ops.misc.Conv2dNormActivation",
    "torchvision.models.mobilenetv3.ConvBNActivation": "torchvision.ops.misc.Conv2dNormActivation",
    "torchvision.models.mobilenetv3.SqueezeExcitation": "torchvision.ops.misc.SqueezeExcitation",
    "torchvision.models.efficientnet.ConvBNActivation": "torchvision.ops.misc.Conv2dNormActivation",
    "torchvision.models.efficientnet.SqueezeExcitation": "torchvision.ops.misc.SqueezeExcitation",
    "torchvision.ops.misc.ConvNormActivation": "torchvision.ops.misc.ConvNormActivation",
}
_PREFIXES = sorted(MOVED, key=len, reverse=True)

# What an attribute of a module may call: functions of tensors that touch nothing else.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"torch.nn.functional.{name}": getattr(F, name) for name in (
        "relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "leaky_relu", "hardswish", "hardsigmoid", "hardtanh",
        "softplus", "sigmoid", "tanh", "softmax", "log_softmax", "normalize", "adaptive_avg_pool2d", "adaptive_max_pool2d",
        "avg_pool2d", "max_pool2d", "interpolate", "dropout", "pixel_shuffle",
    )},
    "torch._C._nn.gelu": F.gelu,
    "torch.relu": Tensor.relu,
    "torch.sigmoid": Tensor.sigmoid,
    "torch.tanh": Tensor.tanh,
    "torch.flatten": Tensor.flatten,
    "fastai.torch_core.TensorBase": lambda x: x,  # a tensor under another name
    "fastai.imports.noop": lambda x=None, *_, **__: x,
    "fastcore.imports.noop": lambda x=None, *_, **__: x,
}  # fmt: skip

# Attributes that the installed classes read and older pickles lack, with what the older code did. By class, and its subclasses.
DEFAULTS: dict[type[nn.Module], dict[str, Any]] = {
    nn.modules.conv._ConvNd: {"padding_mode": "zeros", "output_padding": (0, 0), "transposed": False},  # 1.1
    nn.modules.batchnorm._NormBase: {"track_running_stats": True},  # 0.4.1
    nn.Upsample: {"align_corners": None, "recompute_scale_factor": None},  # 0.4, 1.11
    nn.GELU: {"approximate": "none"},  # 1.12
    nn.SiLU: {"inplace": False},  # 1.7
    nn.Hardswish: {"inplace": False},  # 1.7
    nn.Hardsigmoid: {"inplace": False},  # 1.7
    nn.AvgPool2d: {"divisor_override": None},  # 1.2
    nn.Flatten: {"start_dim": 1, "end_dim": -1},  # 1.2
    nn.MultiheadAttention: {"batch_first": False, "bias_k": None, "bias_v": None, "add_zero_attn": False},  # 1.9
}


def today(path: str) -> str:
    """The dotted name that a class or function has today, from the one in a file of any age."""
    for old in _PREFIXES:
        if path == old or (old.endswith(".") and path.startswith(old)):
            return MOVED[old] + path[len(old) :]
    return path


def module_class(path: str) -> type[nn.Module] | None:
    """The class of that name, a library's own or what stands for it, if it is one whose instances may be rebuilt."""
    path = today(path)
    if path in stock.CLASSES:
        return stock.CLASSES[path]
    home, _, name = path.rpartition(".")
    if path in _DENIED or not (home in _HOMES or home.startswith(_LIBRARIES)):
        return None
    if not all(part.isidentifier() and not part.startswith("__") for part in path.split(".")):
        return None
    try:
        module = importlib.import_module(home)
    except ImportError:
        return None
    found = vars(module).get(name)
    if not isinstance(found, type) or not issubclass(found, nn.Module) or issubclass(found, LazyModuleMixin):
        return None
    return found if (found.__module__, found.__qualname__) == (home, name) else None


def function(path: str) -> Callable[..., Any] | None:
    """One of the few functions that a module's attribute may call."""
    return _FUNCTIONS.get(path)
