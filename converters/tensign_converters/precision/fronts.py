"""Layers from the first on stay in single precision where rounding them spoils the answers: how many, by measured error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
from onnx import ModelProto

from tensign_converters.precision.seen import Feed, session

LINEAR = ("Gemm", "MatMul")
_FRONTS = (0.0, 1 / 16, 3 / 16, 7 / 16)  # how much of the layers is tried in single precision
_JUDGED = 32  # rows


def spared(network: ModelProto, rows: Prepared, enough: float, rounded: Callable[[Collection[str]], ModelProto]) -> ModelProto:
    """The network in a lower precision, all but the fewest first layers that keep its answers off by no more than `enough` of
    their spread; where none are enough, the best of what was tried: what is rounded there all others magnify.

    rounded: makes it, but for the nodes of these names.
    """
    judged = rows.spread(_JUDGED)
    tried: list[tuple[float, ModelProto]] = []
    for front in dict.fromkeys(_front(network, part) for part in _FRONTS):
        made = rounded(front)
        tried.append((_error(network, made, judged), made))
        if tried[-1][0] <= enough:
            break
    return min(tried, key=lambda one: one[0])[1]


class Prepared:
    """Feeds of the graph as what its network gets, computed anew each time they are asked for."""

    def __init__(self, before: ModelProto, feeds: Sequence[Feed]) -> None:
        self._session, self._feeds = session(before), feeds
        self._taken = {value.name for value in self._session.get_inputs()}
        self._names = [value.name for value in self._session.get_outputs()]

    def __iter__(self) -> Iterator[Feed]:
        return map(self._one, self._feeds)

    def spread(self, most: int) -> list[Feed]:
        """At most so many of them, evenly chosen."""
        return [self._one(feed) for feed in self._feeds[:: -(-len(self._feeds) // most)]]

    def _one(self, feed: Feed) -> Feed:
        taken = {name: array for name, array in feed.items() if name in self._taken}
        return dict(zip(self._names, self._session.run(self._names, taken), strict=True))


def _front(network: ModelProto, part: float) -> tuple[str, ...]:
    """The nodes up to, and with what follows, that part of the layers with weights."""
    constants = {tensor.name for tensor in network.graph.initializer}
    names: list[str] = []
    operators = (*LINEAR, "Conv")
    layers = {node.name for node in network.graph.node if node.op_type in operators and node.input[1] in constants}
    left = round(part * len(layers)) or int(part > 0 and len(layers) > 1)
    for node in network.graph.node:
        if node.name in layers:
            left -= 1
        if left < 0:
            break
        names.append(node.name)
    return tuple(names) if part else ()


def _error(network: ModelProto, made: ModelProto, rows: Iterable[Feed]) -> float:
    """Root mean square of what the first output is off by, to its standard deviation."""
    running = [session(network), session(made)]
    count, total, squares, off = 0, 0.0, 0.0, 0.0
    with np.errstate(invalid="ignore"):  # halves may be infinite
        for feed in rows:
            wanted, got = (each.run(None, feed)[0].astype(np.float64) for each in running)
            count, total, squares = count + wanted.size, total + wanted.sum(), squares + np.square(wanted).sum()
            off += np.square(got - wanted).sum()
    error = float(np.sqrt(off / count / max(float(squares / count - (total / count) ** 2), 1e-30)))
    return error if np.isfinite(error) else np.inf
