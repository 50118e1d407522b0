"""The exception tree is what its module docstring draws."""

from __future__ import annotations

import re

import pytest

from tensign import errors

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def drawn_tree() -> dict[str, str]:
    """{class: its base} by the indentation of the docstring."""
    tree: dict[str, str] = {}
    way = {0: "Exception"}  # indentation -> the class last seen there
    for indent, name in re.findall(r"^( {4,})([A-Z]\w+)(?:  .*)?$", errors.__doc__ or "", re.MULTILINE):
        way = {depth: seen for depth, seen in way.items() if depth < len(indent)} | {len(indent): name}
        tree[name] = [way[depth] for depth in sorted(way)][-2]
    return tree


def test_docstring_draws_the_real_tree() -> None:
    assert drawn_tree() == {kind.__name__: kind.__base__.__name__ for kind in CLASSES if kind.__base__}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_a_tensign_error_with_its_own_words(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.TensignError)
    assert kind.__doc__
    assert str(kind("what went wrong")) == "what went wrong"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x" * 5000, "x" * 997 + "..."),
        ("\U0001f600" * 5000, "\U0001f600" * 249 + "..."),
        ("two\nlines\r\n", "two lines  "),
        ("\x1b[2J\0", " [2J "),
        ("half a pair \ud800", "half a pair  "),
        ("wide\u2028\u00a0\u200b", "wide   "),
    ],
)
def test_text_is_one_printable_line_of_a_thousand_bytes(text: str, said: str) -> None:
    assert str(errors.InvalidInput(text)) == said
    assert len(said.encode()) <= errors.MAX_TEXT
