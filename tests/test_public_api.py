"""What `__all__` names is public, modules included: it can be had, and the reference says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tensign
import tensign_converters

PACKAGES = (tensign, tensign_converters)
NAMES = [f"{package.__name__}.{name}" for package in PACKAGES for name in package.__all__]
MODULES = [package.__name__ for package in PACKAGES] + [name for name in NAMES if find_spec(name)]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.__name__))
def test_all_is_sorted_and_everything_in_it_can_be_had(package: ModuleType) -> None:
    assert package.__all__ == sorted(package.__all__)
    had: dict[str, Any] = {}
    exec(f"from {package.__name__} import *", had)
    assert all(had[name] is not None for name in package.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(tensign, "Clint")


def test_what_is_loaded_on_first_use_is_found_at_once_from_then_on() -> None:
    assert tensign.Signature is vars(tensign)["Signature"]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_class_function_method_and_property_has_a_docstring(module: str) -> None:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin)
    files = file.parent.rglob("*.py") if file.name == "__init__.py" and module in NAMES else [file]
    bare = {name for file in files for name in undocumented(ast.parse(file.read_text(encoding="utf-8")), module)}
    assert not bare


def undocumented(node: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
    """Full names of what is public inside a module or class, and the module itself, where no docstring says what it is."""
    if isinstance(node, ast.Module) and ast.get_docstring(node) is None:
        yield name
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            overloaded = any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in child.decorator_list)
            if ast.get_docstring(child) is None and not overloaded:
                yield f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{name}.{child.name}")
