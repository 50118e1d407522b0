"""A server that tells what it holds: serves MODEL..., prints its address, and for each line on stdin one line of JSON.

A line "rest" collects garbage first. Run as a program, it is the child of flatness.py, which describes the fields.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from tensign.config import ModelConfig, ServerConfig
from tensign.model import Model
from tensign.testing import serving

MAX_MESSAGE_BYTES = 1 << 20


def main() -> None:
    models = [Model.load(path, ModelConfig(device="cpu", max_pixels=1_000_000)) for path in sys.argv[1:]]
    config = ServerConfig(grpc_port=0, drain_s=5.0, max_message_bytes=MAX_MESSAGE_BYTES)
    with serving(*models, config=config) as address:
        print(address, flush=True)
        for line in sys.stdin:
            if line.strip() == "rest":
                gc.collect()
            print(json.dumps(held(models)), flush=True)


def held(models: list[Model]) -> dict[str, int]:
    """What this process holds now."""
    rollup = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kib = {field: int(value.removesuffix(" kB")) for field, value in rollup.items()}
    objects = gc.get_objects()
    batchers: list[Any] = [model.batcher for model in models]
    return {
        "anonymous_kib": kib["Anonymous"],  # no file's pages: whether those are shared depends on other processes
        "resident_kib": kib["Rss"],
        "blocks": sys.getallocatedblocks(),
        "objects": len(objects),
        "tasks": sum(isinstance(kept, asyncio.Task) and not kept.done() for kept in objects),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "python_threads": threading.active_count(),
        "requests": sum(len(batcher._unsettled) + len(batcher._room) for batcher in batchers),
        "rows": sum(batcher._queue.rows for batcher in batchers),
    }


if __name__ == "__main__":
    main()
