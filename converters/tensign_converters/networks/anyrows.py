"""A program that was exported for so many rows, tried on twice as many: most treat any number alike, whatever they say."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel
from tensign.specs import TensorSpec

Specs = tuple[TensorSpec, ...]
_WORDS = 10  # integers below that, which any vocabulary has; zeros alone would hide what rows do to each other
_ELSEWHERE = 64  # of an axis of any length, other than that of rows


def any_rows(program: nn.Module, specs: Specs, outputs: Specs) -> tuple[Specs, Specs]:
    """What the program takes and gives, rows free. Raises UnsupportedModel where it does not answer batches one by one."""
    counts = {spec.shape[0] if spec.shape else 0 for spec in specs}
    if counts == {-1}:
        return specs, outputs
    count = max(counts)
    try:
        if counts != {count} or count < 1 or not _alike(program, specs, count):
            raise RuntimeError
    except UnsupportedModel:
        raise
    except Exception:  # torch's, of sizes that do not fit
        raise UnsupportedModel(
            f"a program that was exported for exactly {count} row{'s' if count > 1 else ''}: export it again for any number;"
            " MLflow does where the input_example has two rows or more"
        ) from None
    inputs, outputs = (tuple(replace(spec, shape=(-1, *spec.shape[1:])) for spec in side) for side in (specs, outputs))
    return inputs, outputs


def _alike(program: nn.Module, specs: Specs, count: int) -> bool:
    """Whether two batches at once get the answers that they get one after the other."""
    generator = torch.Generator().manual_seed(0)
    batches = [[_example(spec, count, generator) for spec in specs] for _ in range(2)]
    with torch.no_grad():
        both = _answers(program, [torch.cat(pair) for pair in zip(*batches, strict=True)])
        each = [_answers(program, [given.clone() for given in batch]) for batch in batches]
    return all(
        len(first) == count and torch.allclose(together, torch.cat([first, second]), rtol=1e-3, atol=1e-4)
        for together, first, second in zip(both, *each, strict=True)
    )


def _example(spec: TensorSpec, count: int, generator: torch.Generator) -> Tensor:
    shape = (count, *(_ELSEWHERE if length < 0 else length for length in spec.shape[1:]))
    kind = getattr(torch, spec.dtype.name)
    if kind.is_floating_point:
        return torch.rand(shape, generator=generator).to(kind)
    return torch.randint(2 if kind is torch.bool else _WORDS, shape, generator=generator).to(kind)


def _answers(program: nn.Module, given: list[Tensor]) -> tuple[Tensor, ...]:
    answers = program(*given)
    return answers if isinstance(answers, tuple) else (answers,)
