"""Of several ways to run a kind of batch, the fastest whose answers are those of the plain one. In the worker only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tensign.errors import DeviceLost, ParityFailed, TensignError, UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[Any]]
    Run = Callable[[Arrays], Mapping[str, npt.NDArray[Any]]]

# How far an output may be off fp32, relative to its largest value. fp32 itself is another order of sums; fp16 and tf32 keep 11
# bits, and may do what a conversion's fp16 may; bf16 keeps 8 (EfficientNet-Lite0 on photographs: 0.019, probabilities 0.012).
TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2, "tf32": 1e-2, "bf16": 4e-2}
_RUNS = 3


class Ways:
    """One for each kind of batch that was warmed. place: a device of torchdevice.py; asked: what is run beyond plain fp32, in
    words, "" where nothing is; variant: the precision that may change the answers.
    """

    def __init__(self, place: Any, variant: str, accelerator: str) -> None:
        self._place, self._variant = place, variant
        told = [f"variant {variant}" if variant != "fp32" else "", f"accelerator {accelerator}" if accelerator else ""]
        self._asked = " and ".join(filter(None, told))
        self._found: dict[Any, Run] = {}
        self.apart: float | None = None  # of what is kept, the farthest from plain fp32

    def of(self, batch: Arrays, params: Mapping[str, Any] | None) -> Run | None:
        """None for a kind that nobody warmed."""
        return self._found.get(_kind(batch, params))

    def warm(self, batch: Arrays, params: Mapping[str, Any] | None, plain: Run, makers: Sequence[Callable[[], Run]]) -> None:
        """Of the runs that are made, keeps the fastest whose answers are those of the plain one, which is fp32.

        Raises ParityFailed where none has them, UnsupportedModel where none can be made. Where nothing was asked for, the
        first is the plain one, and right by that: a network may answer otherwise each time.
        """
        pairs = self._judged(batch, plain) if self._asked or len(makers) > 1 else []
        tried: list[tuple[float, list[float], Run]] = []
        failures: list[Exception] = []
        for number, make in enumerate(makers):
            try:
                run = make()
                apart = [
                    check_alike(run(given), wanted, self._variant, self._asked or "channels last")
                    for given, wanted in (pairs if self._asked or number else [])
                ]
                tried.append((_timed(run, batch) if len(makers) > 1 else 0.0, apart, run))
            except Exception as error:
                if isinstance(self._place.told(error), DeviceLost) or (not self._asked and not number):
                    raise
                failures.append(error.with_traceback(None))  # whose frames would hold the device's memory
        if not tried:
            raise self._failure(failures[0]) from failures[0]
        _, apart, self._found[_kind(batch, params)] = min(tried, key=lambda one: one[0])
        if apart:
            self.apart = max([*apart, self.apart or 0.0])

    def _judged(self, batch: Arrays, plain: Run) -> list[tuple[Arrays, Arrays]]:
        """What is tried, and its answers in fp32: the batch, which may be nothing but zeros, and noise where it takes that."""
        self._place.use_tf32(False)
        try:
            pairs = [(batch, plain(batch))]
            if all(array.dtype.kind == "f" or array.dtype == np.uint8 for array in batch.values()):
                random = np.random.default_rng(0)
                noise = {name: _noise(random, array) for name, array in batch.items()}
                try:
                    pairs.append((noise, plain(noise)))
                except Exception as error:  # the network may refuse it
                    if self._place.told(error) is not None:
                        raise
            return pairs
        finally:
            self._place.use_tf32(self._variant == "tf32")

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, TensignError):
            return error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return self._place.told(error) or UnsupportedModel(f"{self._asked}: this network does not run so: {reason}")


def check_alike(answers: Arrays, wanted: Arrays, variant: str, what: str) -> float:
    """How far they are apart, relative to the largest value. what: runs so, in words.

    Raises ParityFailed, which tells how far the answers are apart and how far they may be.
    """
    farthest = 0.0
    for name, its in wanted.items():
        mine = answers.get(name)
        if mine is None or (mine.dtype, mine.shape) != (its.dtype, its.shape):
            came = "nothing" if mine is None else f"{mine.dtype} {list(mine.shape)}"
            raise ParityFailed(f'{what}: answers with {came} for "{name}", plain fp32 with {its.dtype} {list(its.shape)}')
        most = TOLERANCES[variant] if its.dtype.kind == "f" else 0.0
        apart = _apart(mine, its)
        if not apart <= most:  # NaN is not alike
            raise ParityFailed(
                f'{what}: a batch of {len(its)} rows differs from plain fp32 by {apart:.3g} of the largest value of "{name}",'
                f" and may by {most:g}; without it this model runs"
            )
        farthest = max(farthest, apart)
    return farthest


def _apart(mine: npt.NDArray[Any], its: npt.NDArray[Any]) -> float:
    """The greatest difference, relative to the largest value; of what are no floats the share that is not the same."""
    if its.dtype.kind != "f":
        return float(np.mean(mine != its)) if its.size else 0.0
    with np.errstate(invalid="ignore"):
        same = (mine == its) | (np.isnan(mine) & np.isnan(its))
        apart = np.where(same, 0.0, np.abs(mine.astype(np.float64) - its))
    largest = np.abs(its[np.isfinite(its)]).max(initial=0)
    return float(apart.max(initial=0) / max(largest, np.finfo(np.float32).tiny))


def _noise(random: np.random.Generator, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if like.dtype == np.uint8:
        return random.integers(0, 256, like.shape, np.uint8)
    return random.random(like.shape).astype(like.dtype)


def _timed(run: Run, batch: Arrays) -> float:
    took = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        run(batch)
        took.append(time.perf_counter() - began)
    return min(took)


def _kind(batch: Arrays, params: Mapping[str, Any] | None) -> Any:
    """By the params too: they are constants of what is compiled or captured."""
    shapes = tuple((name, array.dtype.str, array.shape) for name, array in batch.items())
    return shapes, repr(sorted((params or {}).items()))
