from __future__ import annotations

import io

from rich.console import Console

from tensign.demo import run_demo


def test_the_demo_names_what_the_photographs_show_and_what_it_took() -> None:
    shown = io.StringIO()
    run_demo(Console(file=shown, width=200), repeats=2)
    said = shown.getvalue()
    assert all(label in said for label in ("espresso", "palace", "Egyptian cat", "missile"))
    assert all(column in said for column in ("images/s", "p50 ms", "p95 ms", "p99 ms", "mean batch"))
