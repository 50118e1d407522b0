"""tensign demo: the bundled model and real photographs."""

from __future__ import annotations

from tensign.cli.options import console


def demo() -> None:
    """Serve the bundled model and stream real photographs to it."""
    from tensign.demo import run_demo

    run_demo(console)
