"""What every rival's file says of it: one value, `Rival`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compare.loads import Load
from compare.wire import Array
from h2load import Request

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements"
INSIDE = HERE / "inside"  # what runs in a rival's own environment


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one server is to play: its environment's Python, a folder of its own, what to serve, where to listen.

    model: the MLmodel directory; its ONNX graph is model/model.onnx. encoded: whether JPEG files are sent, which the server
    decodes and resizes. ports: free on loopback, the first one for requests. threads: of the model, as many as CPUs.
    """

    python: Path
    folder: Path
    model: Path
    encoded: bool
    ports: tuple[int, ...]
    threads: int


@dataclass(frozen=True, slots=True)
class Rival:
    """One server beside ours.

    command: lays the model out in the stage's folder and returns what starts the server; request, answer: its wire;
    environment: of requirements/NAME.txt, "" for this process's own; python: what that is made with; package: whose version
    names it; note: what a reader of its figures should know; computes: False for a floor, whose answers are not compared.
    """

    name: str
    command: Callable[[Stage], list[str]]
    request: Callable[[Load], Request]
    answer: Callable[[bytes], Array]
    environment: str = ""
    python: str = "python3"
    package: str = ""
    note: str = ""
    computes: bool = True

    @property
    def version(self) -> str:
        """Its package as pinned, "mlserver==1.7.1"; "" where it has none."""
        pins = (REQUIREMENTS / f"{self.environment}.txt").read_text().split() if self.environment else []
        return next((pin for pin in pins if pin.startswith(f"{self.package}==")), "")
