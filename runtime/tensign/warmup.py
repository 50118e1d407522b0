"""Warm-up: every bucket runs once on every engine, and is timed, on the way that requests take."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tensign.binding import Binding
from tensign.buckets import Buckets, measure, powers_of_two
from tensign.config import ModelConfig
from tensign.engines import Engine
from tensign.errors import EngineError, TensignError, UnsupportedModel
from tensign.example import example_row, made_up_row
from tensign.plan import ModelPlan
from tensign.request import Outputs, Part, Request
from tensign.slots import Slots

log = logging.getLogger(__name__)

_ANY_CODE = "pyfunc"  # whose answer to a row may depend on the others: it gets the rows of one request, and no more
_CHOOSY = ("sklearn", "pyfunc")  # engines of models that may well refuse a made-up row
_BUILDS = {
    "compile": "%s: compiling for each batch size, which may take minutes the first time",
    "tensorrt": "%s: TensorRT builds an engine for each batch size, which may take minutes the first time",
    "cuda-graphs": "%s: capturing a CUDA graph for each batch size",
}


def warm_up(name: str, plan: ModelPlan, engines: Sequence[Engine], binding: Binding, config: ModelConfig) -> Buckets:
    """The batch sizes worth running, and their times: gathered as the batcher does, run, checked against the signature.

    Raises UnsupportedModel where the network fails on made-up rows, and what the engines raise.
    """
    signature, inputs = binding.signature, binding.inputs
    fixed = next(iter(inputs.values())).shape[0]
    whole = plan.choice.engine == _ANY_CODE
    candidates = (1,) if whole else powers_of_two(config.max_batch_size) if fixed == -1 else (fixed,)
    params = signature.enforce_params(None)
    saved = example_row(plan.manifest, signature) if plan.preprocess is None else None
    made_up = {spec.name: made_up_row(spec, inputs[spec.name].shape) for spec in signature.inputs}
    row = Request.of(binding.to_network(saved or made_up))
    first, *others = engines
    if config.accelerator:
        log.info(_BUILDS[config.accelerator], name)
    slots = Slots(first.empty)

    def gathered(rows: int) -> Outputs:
        return slots.gather([Part(row, 0, 1)] * rows, rows)

    try:
        measured = measure(
            lambda rows: first.warmup(gathered(rows), params),
            lambda rows: binding.run(first, gathered(rows), params),
            candidates,
        )
        for engine in others:
            for rows in measured.rows:
                engine.warmup(gathered(rows), params)
        for engine in engines:
            if engine.apart is not None:
                log.info("%s on %s: at warm-up off plain fp32 by %.2g of the largest value", name, engine.device, engine.apart)
        return Buckets((config.max_queue_rows,), measured.seconds, whole) if whole else measured
    except EngineError as error:
        if saved is None and plan.choice.engine in _CHOOSY:
            log.warning(
                "%s: fails on made-up rows, so its batches are not measured; log it with input_example= (%s)", name, error
            )
            sizes = (config.max_queue_rows,) if whole else candidates
            return Buckets(sizes, tuple(map(float, candidates)), whole, measured=False)
        raise
    except TensignError:
        raise
    except Exception as error:  # whatever the engine's library raises
        made_up_of = ", ".join(f'"{spec.name}" {spec}' for spec in inputs.values())
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedModel(f"the network fails on made-up rows of {made_up_of}: {reason}") from error
