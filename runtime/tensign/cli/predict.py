"""tensign predict: pictures in, labels out, in a file that an interrupted run goes on with."""

from __future__ import annotations

import glob
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tensign import conversion
from tensign.classification import named
from tensign.cli.options import CACHE, CacheDir, Device, Trust, load
from tensign.client import Answer, Client
from tensign.config import ModelConfig
from tensign.decode import SUFFIXES
from tensign.errors import InvalidConfig, TensignError, UnsupportedModel
from tensign.model import Model
from tensign.request import Outputs
from tensign.results import Results, Row

_WINDOW = 128  # pictures on their way at once, so that every core and the largest batch have something to do
_LISTED = 20


def predict(
    target: Annotated[str, typer.Argument(metavar="MODEL|HOST:PORT", help="An MLmodel directory, or a running server.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Pictures; folders with all below them; patterns.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .jsonl or .parquet file; what it holds already is not done again.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes of each picture; a multi-label model: all above its threshold.")] = 3,
    model: Annotated[str, typer.Option(help="Which model, where a server offers several.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS to the server.")] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the authorities to trust, in place of the system's.")] = None,
    token: Annotated[str | None, typer.Option(envvar="TENSIGN_TOKEN", help="Bearer token for the server.")] = None,
    device: Device = "auto",
    trust: Trust = False,
    cache_dir: CacheDir = CACHE,
) -> None:
    """Classify pictures, with a model in this process or a server. Exit code 1 where some failed, 2 where nothing ran."""
    with ExitStack() as stack:
        files = _found(images)
        name, predicted = stack.enter_context(_predictor(target, top, device, trust, cache_dir, model, ca or tls, token))
        results = stack.enter_context(Results(out, name)) if out else None
        left = [file for file in files if results is None or file not in results.done]
        progress = stack.enter_context(_progress(quiet=results is None))
        bar = progress.add_task("predicting", total=len(files), completed=len(files) - len(left))
        failed: list[Row] = []
        if results is not None:
            stack.callback(_report, failed, results.path)  # also when the run breaks off
        for answer in predicted(left):
            row = _row(answer, name)
            if row.error:
                failed.append(row)
            if results is not None:
                results.add(row)
            else:
                _print(row, as_json=as_json)
            progress.advance(bar)
    if failed:
        raise typer.Exit(1)


@contextmanager
def _predictor(
    target: str, top: int, device: str, trust: bool, cache: Path, model: str, tls: bool | Path, token: str | None
) -> Iterator[tuple[str, Callable[[list[str]], Iterator[Answer]]]]:
    """The model's name, and what gives the answers to files in their order."""
    if Path(target).is_dir():
        loaded = _loaded(Path(target), device, trust, cache)
        try:
            yield _identity(loaded.name, loaded.digest), partial(_in_process, loaded, top)
        finally:
            loaded.close()
    elif ":" in target:
        with Client(target, model=model, tls=tls, token=token) as client:
            if not client.metadata().image:
                raise UnsupportedModel(f"{target}: {client.model()} declares no preprocessing, so it takes no pictures")
            yield _identity(client.model(), client.metadata().sha256), partial(client.stream, top=top, window=_WINDOW)
    else:
        raise InvalidConfig(f"{target}: no such directory, and no host:port either")


def _identity(name: str, digest: str) -> str:
    """A model that was trained again keeps its name."""
    return f"{name}@{digest[:12]}" if digest else name


def _found(given: list[str]) -> list[str]:
    """Files as they are named, those of folders and patterns in order; a name that is none of these stays, to fail alone."""
    found: dict[str, None] = {}
    for name in given:
        if not name:
            raise InvalidConfig("IMAGE: wanted a name, got nothing")
        if Path(name).is_dir():
            names = [str(path) for path in Path(name).rglob("*") if path.suffix.lower() in SUFFIXES]
            if not names:
                raise InvalidConfig(f"{name}: no {', '.join(sorted(SUFFIXES))} file in it")
        else:
            names = glob.glob(name, recursive=True) if glob.has_magic(name) and not Path(name).exists() else [name]
            if not names:
                raise InvalidConfig(f"{name}: no file of that pattern")
        found.update(dict.fromkeys(sorted(names)))
    return list(found)


def _loaded(path: Path, device: str, trust: bool, cache: Path) -> Model:
    directory = conversion.servable(path, trust=trust, cache=cache)
    loaded = load(directory, "", ModelConfig(device=device), trust=False, cache=cache)
    if loaded.plan.image is None:
        loaded.close()
        raise UnsupportedModel(f"{path}: declares no preprocessing, so pictures cannot become its input {loaded.signature}")
    return loaded


def _in_process(model: Model, top: int, files: list[str]) -> Iterator[Answer]:
    """Answers in order, with so much under way that batches fill and pictures are decoded beside them."""
    image, output, plan = model.plan.image, model.signature.outputs[0].name, model.plan
    assert image is not None
    running: deque[tuple[str, Future[Outputs] | TensignError]] = deque()

    def answered() -> Answer:
        file, future = running.popleft()
        try:
            if isinstance(future, TensignError):
                raise future
            scores = future.result()[output]
        except TensignError as error:
            return Answer.failed(file, error)
        return Answer(file, {output: scores[0]}, tuple(named(scores, top, plan.threshold, plan.labels, plan.task)[0]))

    window = min(_WINDOW, model.config.max_queue_rows)
    for file in files:
        try:
            running.append((file, model.submit({image: np.array([Path(file).read_bytes()], object)})))
        except OSError as error:
            running.append((file, TensignError(error.strerror or str(error))))
        except TensignError as error:
            running.append((file, error))
        if len(running) == window:
            yield answered()
    while running:
        yield answered()


def _row(answer: Answer, model: str) -> Row:
    if answer.error is not None:
        return Row(answer.source, model, error=str(answer.error).removeprefix(f"{answer.source}: "))
    score = answer.scores[0] if answer.predictions else None
    return Row(answer.source, model, answer.label, score, answer.labels, answer.scores)


def _print(row: Row, *, as_json: bool) -> None:
    if as_json:
        found = [{"label": label, "score": score} for label, score in zip(row.labels, row.scores, strict=True)]
        print(json.dumps({"image": row.image, "error": row.error} if row.error else {"image": row.image, "predictions": found}))
    elif row.error:
        print(f"{row.image}: error: {row.error}")
    else:
        labels = ", ".join(f"{label} {score:.4f}" for label, score in zip(row.labels, row.scores, strict=True))
        print(f"{row.image}: {labels or 'no label above the threshold'}")


def _progress(*, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet or not sys.stderr.isatty())


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.0f}/s")


def _report(failed: list[Row], path: Path) -> None:
    for row in failed[:_LISTED]:
        print(f"{row.image}: error: {row.error}", file=sys.stderr)
    if len(failed) > _LISTED:
        print(f"... and {len(failed) - _LISTED} more", file=sys.stderr)
    if failed:
        print(f"{len(failed)} failed; the same command tries them again. The rest is in {path}", file=sys.stderr)
