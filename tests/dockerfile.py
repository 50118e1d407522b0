"""A Dockerfile as stages of instructions, as far as ours goes."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM and what follows it, with its continued lines joined; base is another stage, or an image."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


class Dockerfile:
    """Stages by their names, in order."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.stages: dict[str, Stage] = {}
        lines = [line for line in self.text.splitlines() if not line.startswith("#")]
        for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
            word, _, rest = line.partition(" ")
            if word == "FROM":
                base, _, name = rest.partition(" AS ")
                stage = self.stages[name] = Stage(name, base)
            elif word:
                stage.steps.append((word, rest))

    def steps(self, target: str) -> list[tuple[str, str]]:
        """Instructions that make a stage, those of the stages it is built from first."""
        stage = self.stages[target]
        return (self.steps(stage.base) if stage.base in self.stages else []) + stage.steps

    def environment(self, target: str, outside: dict[str, str]) -> dict[str, str]:
        """Variables of a stage; $NAME in a value is what it was before."""
        found = dict(outside)
        for word, rest in self.steps(target):
            for name, _, value in (pair.partition("=") for pair in shlex.split(rest) if word == "ENV"):
                found[name] = re.sub(r"\$(\w+)", lambda match: found[match[1]], value)
        return found

    def last(self, target: str, word: str) -> str:
        """What a stage says last of something, such as its USER."""
        return [rest for said, rest in self.steps(target) if said == word][-1]

    def command(self, target: str, word: str) -> list[str]:
        """A JSON list, the CMD of a HEALTHCHECK too."""
        listed: list[str] = json.loads(self.last(target, word).partition("[")[1] + self.last(target, word).partition("[")[2])
        return listed
