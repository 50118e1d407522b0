"""The operators that a program given as data may call: torch's own, of tensors and sizes, that touch nothing else.

Left out on purpose: what reads or maps files, what takes memory as it lies there (as_strided, empty, set_), chance, and what
does not hold every size against the memory that it reads: in torch 2.14 lstm, take_along_dim, the batch norm of decomposed
programs, and upsampling by a scale and a size that need not agree.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

_ATEN = frozenset(
    """
    relu relu6 elu selu celu gelu silu mish leaky_relu prelu hardswish hardsigmoid hardtanh hardshrink softshrink softplus
    sigmoid tanh log_sigmoid threshold glu softmax log_softmax _softmax _log_softmax
    conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d
    batch_norm layer_norm native_layer_norm group_norm native_group_norm instance_norm
    rms_norm dropout feature_dropout alpha_dropout native_dropout
    linear matmul mm bmm addmm baddbmm mv dot outer einsum embedding scaled_dot_product_attention cdist cosine_similarity
    max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d
    view reshape _unsafe_view view_as reshape_as flatten unflatten squeeze unsqueeze permute transpose t swapaxes swapdims
    movedim expand expand_as broadcast_to repeat repeat_interleave tile cat concat stack hstack vstack chunk split
    split_with_sizes tensor_split unbind select slice narrow index index_select roll flip rot90
    unfold im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle meshgrid tril triu diagonal diag_embed
    select_scatter slice_scatter index_put index_fill masked_fill where one_hot
    pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d
    upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler
    affine_grid_generator
    add sub mul div true_divide floor_divide remainder fmod rsub pow square sqrt rsqrt reciprocal neg abs sign exp exp2 expm1
    log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh erf floor ceil round trunc frac lerp addcmul addcdiv
    clamp clamp_min clamp_max maximum minimum fmax fmin nan_to_num isnan isinf isfinite logaddexp
    eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor
    __and__ __or__ __xor__
    mean sum prod amax amin max min argmax argmin std var std_mean var_mean logsumexp norm linalg_norm linalg_vector_norm
    cumsum cumprod all any topk sort argsort count_nonzero
    zeros ones full arange linspace eye scalar_tensor zeros_like ones_like full_like new_zeros new_ones new_full
    clone contiguous detach alias lift_fresh_copy copy fill zero to _to_copy type_as
    sym_size sym_numel
    """.split()
)
_ASSERTIONS = frozenset(  # they compute nothing
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_scalar.default", "_assert_tensor_metadata.default", "_assert_async.msg",
        "sym_constrain_range.default", "sym_constrain_range_for_size.default",
    )
)  # fmt: skip
_SIZES: dict[str, Callable[..., Any]] = {  # what programs reckon with sizes, which are numbers
    **{f"_operator.{name}": getattr(operator, name) for name in (
        "add", "sub", "mul", "floordiv", "mod", "truediv", "neg", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_",
    )},
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
    **{f"torch.{name}": getattr(torch, name) for name in (
        "sym_float", "sym_int", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sqrt",
    ) if hasattr(torch, name)},
}  # fmt: skip


def size_function(target: str) -> Callable[..., Any] | None:
    """A function of numbers, as a program names it: "_operator.floordiv"."""
    return _SIZES.get(target)


def asserts(target: str) -> bool:
    """Whether a target only holds what torch knew when the program was exported."""
    return target in _ASSERTIONS


def aten(target: str) -> torch._ops.OpOverload | None:
    """One of the operators, as a program names it: "torch.ops.aten.add_.Tensor", in place or not."""
    home, _, rest = target.partition("torch.ops.aten.")
    name, _, overload = rest.partition(".")
    if home or not {name, name.removesuffix("_")} & _ATEN:
        return None
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or overload not in packet.overloads() or ("upsample" in name and overload != "vec"):
        return None
    found: torch._ops.OpOverload = getattr(packet, overload)
    return None if any(argument.is_out for argument in found._schema.arguments) else found
