"""The version stands in version.py, and everything that tells one agrees; a commit is checked as `make check` checks.

`make release-check` asks the built wheel.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from datetime import date
from importlib import metadata
from pathlib import Path

import yaml

from tensign.version import __version__

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)  # newest first


def test_the_newest_heading_of_the_changelog_is_the_version() -> None:
    assert HEADINGS[0].split(" - ")[0] == __version__


def test_only_the_newest_version_is_unreleased_and_the_others_go_back_in_time() -> None:
    dates = [heading.split(" - ")[1] for heading in HEADINGS]
    if dates[0] == "unreleased":
        del dates[0]
    days = [date.fromisoformat(day) for day in dates]
    versions = [tuple(map(int, heading.split(" - ")[0].split("."))) for heading in HEADINGS]
    assert days == sorted(days, reverse=True)
    assert all(newer > older for newer, older in itertools.pairwise(versions))


def test_every_change_is_of_a_kind_that_the_changelog_knows() -> None:
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_build_takes_the_version_from_its_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "runtime/tensign/version.py"
    assert metadata.version("tensign") == __version__


def test_a_version_on_the_image_is_this_one() -> None:
    labels = re.findall(r"org\.opencontainers\.image\.version=[\"']?([^\s\"']+)", (ROOT / "Dockerfile.gpu").read_text())
    assert set(labels) <= {__version__}


def test_pre_commit_runs_the_parts_of_make_check() -> None:
    parts = re.search(r"^check: ([a-z -]+?) *##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert parts is not None
    assert [hook["entry"] for hook in hooks] == [f"make {part}" for part in parts[1].split()]
