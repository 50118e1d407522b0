"""What the client costs: 640x480 JPEG files streamed from disk, beside h2load sending the same messages.

    python benchmarks/client.py        # about two minutes; written to benchmarks/results/client.json

Both load the same served demo model (EfficientNet-Lite0, decoding and resizing on the server), 16 requests in flight, in
alternating rounds; figures are medians. h2load is written in C, repeats one message and looks at no answer; the client opens
every file, builds its message and reads probabilities and labels out of every answer. All of them share this machine's cores.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import h2load
from tensign.child import served
from tensign.client import Client
from tensign.demo import MODEL, PICTURES

RESULTS = Path(__file__).parent / "results" / "client.json"
ROUNDS, REQUESTS, IN_FLIGHT = 5, 400, 16


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(MODEL, "--device", "cpu") as address:
        picture = Image.open(next(PICTURES.glob("rocket*"))).convert("RGB").resize((640, 480))
        files = [Path(folder) / f"{number:04}.jpg" for number in range(REQUESTS)]
        for file in files:
            picture.save(file, quality=90)
        with Client(address) as client:
            message = client.request(files[0])
            rates: dict[str, list[float]] = {"h2load": [], "client": []}
            cpu: list[float] = []
            for number in range(ROUNDS + 1):
                load = h2load.run(address, message, concurrency=IN_FLIGHT, requests=REQUESTS)
                began, spent = time.perf_counter(), time.process_time()
                labels = {answer.checked().label for answer in client.stream(files, window=IN_FLIGHT)}
                took, cpu_s = time.perf_counter() - began, time.process_time() - spent
                assert len(labels) == 1, labels
                if number:  # the first round warms up
                    rates["h2load"].append(load.requests_per_s)
                    rates["client"].append(REQUESTS / took)
                    cpu.append(cpu_s / REQUESTS * 1000)
    ratios = [ours / theirs for ours, theirs in zip(rates["client"], rates["h2load"], strict=True)]
    document = {
        "message_bytes": len(message),
        "in_flight": IN_FLIGHT,
        "rounds": ROUNDS,
        "h2load_per_s": statistics.median(rates["h2load"]),
        "client_per_s": statistics.median(rates["client"]),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        "client_cpu_ms_per_picture": statistics.median(cpu),
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    print(
        f"{len(message)} bytes a message, {IN_FLIGHT} in flight: h2load {document['h2load_per_s']:.1f}/s, client"
        f" {document['client_per_s']:.1f}/s, ratio {document['ratio']:.3f} ({np.min(ratios):.3f} to {np.max(ratios):.3f});"
        f" the client spends {document['client_cpu_ms_per_picture']:.2f} ms of a core on a picture"
    )


if __name__ == "__main__":
    main()
