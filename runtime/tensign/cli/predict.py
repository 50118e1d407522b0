"""tensign predict: pictures in, labels out, in a file that an interrupted run goes on with."""

from __future__ import annotations

import io
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

from tensign.classification import named
from tensign.cli.checks import refuse, typed
from tensign.cli.files import found, skipped
from tensign.cli.options import CACHE, CacheDir, Device, EngineName, Python, Trust, Variant, load
from tensign.client import Answer, Client
from tensign.config import ModelConfig
from tensign.errors import InvalidConfig, TensignError, UnsupportedModel
from tensign.model import Model
from tensign.plan import ModelPlan
from tensign.request import Outputs
from tensign.results import Results, Row

_WINDOW = 128  # pictures on their way at once, so that every core and the largest batch have something to do
_LISTED = 20


def predict(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODEL|HOST:PORT", help="An MLmodel directory, or a running server.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Pictures; folders with all below them; patterns.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .csv, .jsonl or .parquet file; what it holds already is not done again. Names are compared as they are "
            "written: ./a.jpg is not a.jpg."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, the same as in a .jsonl file.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes of each picture; a multi-label model: all above its threshold.")] = 3,
    model: Annotated[str, typer.Option(help="Which model, where a server offers several.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS to the server.")] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the authorities to trust, in place of the system's.")] = None,
    token: Annotated[str | None, typer.Option(envvar="TENSIGN_TOKEN", help="Bearer token for the server.")] = None,
    device: Device = "auto",
    trust: Trust = False,
    engine: EngineName = "auto",
    variant: Variant = "fp32",
    python: Python = "",
    cache_dir: CacheDir = CACHE,
) -> None:
    """Classify pictures, with a model in this process or a server. Exit code 1 where some failed, 2 where nothing ran."""
    _refuse_in_vain(context, target)
    files = found(images)
    if others := skipped(images):
        print(f"{_count(others, 'file')} skipped, no picture suffix", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
    config = ModelConfig(device=device, engine=engine, variant=variant, trust=trust, python=python)
    results: Results | None = None
    predicted, failed = 0, list[Row]()
    try:
        with ExitStack() as stack:
            name, answers = stack.enter_context(_predictor(target, top, config, cache_dir, model, ca or tls, token))
            results = stack.enter_context(Results(out, name)) if out else None
            left = [file for file in files if results is None or file not in results.done]
            before = len(files) - len(left)
            progress = stack.enter_context(_progress(quiet=results is None))
            bar = progress.add_task("predicting", total=len(files), completed=before)
            for answer in answers(left):
                row = _row(answer, name)
                if results is not None:
                    results.add(row)
                else:
                    print(row.json() if as_json else _line(row))
                if row.error is None:
                    predicted += 1
                else:
                    failed.append(row)
                progress.advance(bar)
    except BaseException as error:
        if results is not None:
            _list(failed)
            print(f"{predicted} predicted, in {results.grown}; the same command goes on", file=sys.stderr)
            if isinstance(error, KeyboardInterrupt):
                raise typer.Exit(130) from None
        raise
    if results is not None:
        _list(failed)
        counts = f"{predicted} predicted, {len(failed)} failed" + (f", {before} were there" if before else "")
        print(f"{counts}, in {results.path}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


_OF_SERVERS, _OF_DIRECTORIES = ("model", "tls", "ca", "token"), ("device", "engine", "variant", "trust", "python", "cache_dir")


def _refuse_in_vain(context: typer.Context, target: str) -> None:
    """Options that could change nothing; a variable of the environment may be meant for other commands."""
    if Path(target).is_dir():
        refuse(typed(context), _OF_SERVERS, f"to a local directory, and {target} is one")
    else:
        refuse(typed(context), _OF_DIRECTORIES, f"to a server, and {target} is one")
    if context.params["out"] is not None and context.params["as_json"]:
        raise InvalidConfig("--json prints and --out writes a file; give one of them")


@contextmanager
def _predictor(
    target: str, top: int, config: ModelConfig, cache: Path, model: str, tls: bool | Path, token: str | None
) -> Iterator[tuple[str, Callable[[list[str]], Iterator[Answer]]]]:
    """The model's name, and what gives the answers to files in their order."""
    if Path(target).is_dir():
        loaded = _loaded(Path(target), config, cache)
        try:
            variant = "" if config.variant == "fp32" else f" {config.variant}"
            yield _identity(loaded.name, loaded.digest) + variant, partial(_in_process, loaded, top)
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


def _loaded(path: Path, config: ModelConfig, cache: Path) -> Model:
    if plan := _known(path, config.engine):
        _check_pictures(path, plan)
    loaded = load(path, "", config, cache=cache)
    try:
        _check_pictures(path, loaded.plan)
    except UnsupportedModel:
        loaded.close()
        raise
    return loaded


def _known(path: Path, engine: str) -> ModelPlan | None:
    """What can be told before anything is loaded or converted; None where that will tell, as a Learner's pictures."""
    try:
        return ModelPlan.of(path, engine)
    except TensignError:  # of what is converted first; of what cannot be opened, whoever opens it says so
        return None


def _check_pictures(path: Path, plan: ModelPlan) -> None:
    if plan.image is None:
        if plan.signature.columnar:
            raise UnsupportedModel(f"{path}: takes a table of {len(plan.signature.inputs)} columns, and no pictures")
        raise UnsupportedModel(
            f"{path}: declares no preprocessing, so pictures cannot become its input {plan.signature}; to declare it:"
            " tensign convert SRC DST --preprocess YAML"
        )


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
        said = str(answer.error.args[0]).removeprefix(f"{answer.source}: ")  # not its text, where odd names are replaced
        return Row(answer.source, model, error=str(TensignError(said)))
    score = answer.scores[0] if answer.predictions else None
    return Row(answer.source, model, answer.label or None, score, answer.labels, answer.scores)


def _line(row: Row) -> str:
    if row.error is not None:
        return f"{row.image}: error: {row.error}"
    labels = ", ".join(f"{label} {score:.4f}" for label, score in zip(row.labels, row.scores, strict=True))
    return f"{row.image}: {labels or 'no label above the threshold'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _progress(*, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet or not sys.stderr.isatty())


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.0f}/s")


def _list(failed: list[Row]) -> None:
    for row in failed[:_LISTED]:
        print(_line(row), file=sys.stderr)
    if len(failed) > _LISTED:
        print(f"... and {len(failed) - _LISTED} more", file=sys.stderr)
    if failed:
        print("the same command tries them again", file=sys.stderr)
