"""A server as a child process: what the demo and the load generator put their requests to."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensign.errors import ModelNotReady


@contextmanager
def served(path: Path, *arguments: str) -> Iterator[str]:
    """Runs `tensign serve PATH` on a free loopback port, yields its gRPC address once it is ready, then ends it.

    Raises ModelNotReady when it ends before it is ready; what it had to say is on stderr already.
    """
    with ready(path, "--no-http", *arguments) as addresses:
        yield addresses["grpc"]


@contextmanager
def ready(path: Path, *arguments: str) -> Iterator[dict[str, str]]:
    """The same with HTTP beside it; yields its addresses by their scheme, "grpc" and "http"."""
    command = [sys.executable, "-P", "-m", "tensign", "serve", str(path), "--grpc-port", "0", *arguments]
    # In a group of its own, where a Ctrl-C that is meant for us does not reach it.
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    assert server.stdout is not None
    try:
        addresses = dict(re.findall(r"\b(grpc|http)://(\S+)", server.stdout.readline()))
        if not addresses:
            raise ModelNotReady(f"the server ended with status {server.wait()} before it was ready")
        yield addresses
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
