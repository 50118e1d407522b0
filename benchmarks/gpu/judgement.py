"""The figures to reach, held against what one document of measurements holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpu.step import Document
from tensign.gpudecoding import MEAN, MOST

REACHED, MISSED, NOT_RUN = "reached", "missed", "not run"
_LIMITS = {
    "fp32": (1e-4, 1.0),
    "fp16": (5e-3, 0.995),
    "bf16": (5e-3, 0.995),
}  # greatest difference of a probability, least agreement on the best class
_BESIDE_BARE, _SERVED, _P99_MS, _ONE_MS = 0.95, 0.9, 25.0, 1.5
_FLAT_S, _FLAT_BYTES = 300.0, 32 << 20
# From host memory to host memory, the same in several lanes at once, and the computation alone on what the device has.
WAYS = {"whole": "from host memory", "lanes": "from host memory, in lanes", "alone": "on the device alone"}
_RESNETS = ("resnet18", "resnet50")
_SERVED_AS = "tensign fp16"  # in process, of what the step `served` serves


def figures(document: Document) -> list[Document]:
    """[{"figure", "wanted", "found", "verdict", "why"}]: each is reached, missed or not run; on a CPU none is run."""
    made = [*_right(document), *_in_process(document), *_decoding(document), *_over_grpc(document), *_flat(document)]
    if document["on"] == "cpu":
        made = [each | {"verdict": NOT_RUN, "why": "this ran on the CPU"} for each in made]
    return made


def cells(document: Document, step: str) -> dict[str, Document]:
    """The measured ones of a step, by name."""
    found = document["steps"].get(step, {}).get("cells", {})
    return {name: cell for name, cell in found.items() if isinstance(cell, dict) and not unmeasured(cell)}


def unmeasured(cell: Any) -> str:
    """Why a cell has no figures, "" where it has."""
    for word in ("skipped", "failed"):
        if isinstance(cell, dict) and set(cell) == {word}:
            return f"{word}: {cell[word]}"
    return ""


def best(document: Document, network: str, chosen: Callable[[Document], bool]) -> Document | None:
    """The fastest {"method", "batch", "how", "images_per_s"} in process of the chosen cells of that network."""
    found = [
        {"method": cell["method"], "arithmetic": cell["arithmetic"], "batch": int(batch), "how": how, **figures[how]}
        for cell in cells(document, "inprocess").values()
        if cell["network"] == network and "method" in cell and chosen(cell)
        for batch, figures in cell["batches"].items()
        for how in WAYS
        if how in figures
    ]
    return max(found, key=lambda each: float(each["images_per_s"]), default=None)


def fastest(document: Document, network: str, kinds: str = "raw") -> Document | None:
    """The cell of the step `served` with most images/s of that network ("no-op": of the server that computes nothing)."""
    found = [
        cell
        for cell in cells(document, "served").values()
        if network_of(cell) == network and cell.get("kind", "").startswith(kinds) and "share" not in cell
    ]
    return max(found, key=lambda cell: float(cell["images_per_s"]), default=None)


def network_of(cell: Document) -> str:
    """Without the number of front ends that it was served by."""
    return str(cell["network"]).partition(" by ")[0]


def _figure(name: str, wanted: str, found: str, good: bool | None, why: str) -> Document:
    verdict = NOT_RUN if good is None else REACHED if good else MISSED
    return {"figure": name, "wanted": wanted, "found": found, "verdict": verdict, "why": why}


def _right(document: Document) -> Iterator[Document]:
    for arithmetic, (limit, agreement) in _LIMITS.items():
        for own in (True, False) if arithmetic != "bf16" else (True,):  # no bare loop has that
            compared = [
                cell
                for cell in cells(document, "correctness").values()
                if cell["arithmetic"] == arithmetic and cell["method"].startswith("tensign") == own
            ]
            name = f"{arithmetic}{' without TF32' * (arithmetic == 'fp32' and not own)}, {'tensign' if own else 'bare loops'}"
            wanted = f"at most {limit:g}", f"at least {agreement:.1%}"
            if not compared:
                yield _figure(f"{name}: difference from CPU fp32", wanted[0], "", None, _missing(document, "correctness"))
                yield _figure(f"{name}: top-1 agreement", wanted[1], "", None, _missing(document, "correctness"))
                continue
            worst = max(compared, key=lambda cell: _or_infinite(cell["difference"]))
            least = min(compared, key=lambda cell: float(cell["top1_agreement"]))
            yield _figure(
                f"{name}: difference from CPU fp32",
                wanted[0],
                f"{worst['difference']:.1e}",
                worst["difference"] <= limit,
                f"the worst of {len(compared)}: {worst['network']}, {worst['method']}",
            )
            yield _figure(
                f"{name}: top-1 agreement",
                wanted[1],
                f"{least['top1_agreement']:.2%}",
                least["top1_agreement"] >= agreement,
                f"the least of {len(compared)}: {least['network']}, {least['method']}, of {least['rows']} rows",
            )


def _or_infinite(value: float) -> float:
    return value if value == value else float("inf")


def _in_process(document: Document) -> Iterator[Document]:
    for network in _RESNETS:
        name, wanted = f"{network} in process: tensign to the best bare loop", f"at least {_BESIDE_BARE}"
        own = best(document, network, lambda cell: cell["own"] and cell["arithmetic"] not in ("int8", "bf16"))  # no bare loop
        bare = best(document, network, lambda cell: not cell["own"])
        if own is None or bare is None:
            yield _figure(name, wanted, "", None, _missing(document, "inprocess"))
            continue
        ratio = own["images_per_s"] / bare["images_per_s"]
        sides = (f"{each['images_per_s']:.0f} images/s ({each['method']}, {each['batch']} rows" for each in (own, bare))
        why = f"{next(sides)}) to {next(sides)}, {WAYS[bare['how']]})"
        yield _figure(name, wanted, f"{ratio:.2f}", ratio >= _BESIDE_BARE, why)


def _decoding(document: Document) -> Iterator[Document]:
    name, wanted = (
        "JPEGs decoded on the GPU: difference of a pixel from the CPU's",
        f"at most {MOST}, {MEAN} in the mean, of 255",
    )
    apart = cells(document, "decode").get("difference")
    if apart is None:
        yield _figure(name, wanted, "", None, _missing(document, "decode"))
        return
    pays = cells(document, "decode").values()
    why = "; ".join(
        f"by {each['threads']} threads pays from {each['pays_from_pixels']} pixels" for each in pays if "threads" in each
    )
    good = apart["most"] <= MOST and apart["mean"] <= MEAN
    yield _figure(name, wanted, f"{apart['most']}, {apart['mean']:.2f} in the mean", good, why)


def _over_grpc(document: Document) -> Iterator[Document]:
    for network in reversed(_RESNETS):
        engine = best(document, network, lambda cell: cell["method"] == _SERVED_AS)
        ours, floor = fastest(document, network), fastest(document, "no-op")
        name, wanted = f"{network} over gRPC: images/s to the lesser of in process and no-op server", f"at least {_SERVED}"
        if engine is None or ours is None or floor is None:
            reason = _missing(document, "served" if ours is None or floor is None else "inprocess")
            yield _figure(name, wanted, "", None, reason)
        else:
            least = min(engine["images_per_s"], floor["images_per_s"])
            ratio = ours["images_per_s"] / least
            why = (
                f"{ours['images_per_s']:.0f} ({ours['network']}, {ours['kind']}, {ours['level']} in flight); in process"
                f" {engine['images_per_s']:.0f}, no-op server {floor['images_per_s']:.0f}"
            )
            yield _figure(name, wanted, f"{ratio:.2f}", ratio >= _SERVED, why)
        yield _tail(document, network)
        yield _single(document, network)


def _tail(document: Document, network: str) -> Document:
    name, wanted = f"{network} over gRPC: p99 at 70 % load", f"under {_P99_MS:g} ms"
    loads = [cell for cell in cells(document, "served").values() if network_of(cell) == network and "share" in cell]
    if loads:
        cell = max(loads, key=lambda each: float(each["images_per_s"]))
        why = f"{cell['network']}, open loop, {cell['requests_per_s']:.0f} requests/s, {cell['kind']}"
        return _figure(name, wanted, f"{cell['p99_ms']:.1f} ms", cell["p99_ms"] < _P99_MS, why)
    return _figure(name, wanted, "", None, _missing(document, "served"))


def _single(document: Document, network: str) -> Document:
    """One image at a time, one in flight, against a batch of one in process."""
    name, wanted = f"{network} over gRPC: p50 of one image beyond in process", f"at most {_ONE_MS:g} ms"
    served = [
        (float(cell["p50_ms"]), str(cell["network"]))
        for cell in cells(document, "served").values()
        if network_of(cell) == network and cell.get("kind") == "raw, unary" and cell.get("level") == 1
    ]
    alone = [
        cell["batches"]["1"]["whole"]["ms"]
        for cell in cells(document, "inprocess").values()
        if cell["network"] == network and cell.get("method") == _SERVED_AS and "1" in cell["batches"]
    ]
    if not served or not alone:
        return _figure(name, wanted, "", None, _missing(document, "inprocess" if served else "served"))
    took, by = min(served)
    beyond = took - alone[0]
    return _figure(name, wanted, f"{beyond:.2f} ms", beyond <= _ONE_MS, f"{by}, {took:.2f} ms against {alone[0]:.2f} ms")


def _flat(document: Document) -> Iterator[Document]:
    name, wanted = "device memory at full load", f"{_FLAT_S:.0f} s, growth at most {_FLAT_BYTES >> 20} MiB"
    for cell in cells(document, "memory").values():
        if "growth_bytes" not in cell:
            continue
        found = f"{cell['growth_bytes'] / 2**20:.0f} MiB in {cell['seconds']:.0f} s"
        flat = cell["growth_bytes"] <= _FLAT_BYTES
        if flat and cell["seconds"] < _FLAT_S:
            yield _figure(name, wanted, found, None, "too short to say: python benchmarks/gpu --only memory --minutes 6")
        else:
            yield _figure(name, wanted, found, flat, f"{cell['network']}, {cell['images_per_s']:.0f} images/s")
        return
    yield _figure(name, wanted, "", None, _missing(document, "memory"))


def _missing(document: Document, step: str) -> str:
    """Why there is nothing to judge by: what the step says, each reason once."""
    if step not in document["steps"]:
        return f"step {step} was not run"
    found = document["steps"][step]
    said = (unmeasured(cell).partition(": ")[2] for cell in found["cells"].values())
    reasons = list(dict.fromkeys(reason for reason in said if reason))
    ended = f"step {step} {found['ended']}" if found["ended"] else ""
    return "; ".join([*([ended] if ended else []), *reasons[:3]]) or f"step {step} holds no such figure"
