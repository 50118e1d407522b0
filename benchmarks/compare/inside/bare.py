"""The model with nothing around it: pictures a second. `python bare.py MODEL.onnx PICTURES.npy SECONDS`

Raw pictures run batch by batch, the model on all threads; files are decoded, and run, by as many threads as there may be.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
from onnx_model import OnnxModel


def rows_per_s(model: OnnxModel, pictures: np.ndarray, seconds: float, workers: int) -> float:
    model(pictures)
    done = [0] * workers
    started = time.perf_counter()

    def work(index: int) -> None:
        while time.perf_counter() < started + seconds:
            model(pictures)
            done[index] += len(pictures)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


if __name__ == "__main__":
    file, sent, seconds = sys.argv[1:]
    pictures = np.load(sent, allow_pickle=True)
    workers = int(os.environ["MODEL_THREADS"]) if pictures.dtype == object else 1
    print(rows_per_s(OnnxModel(file), pictures, float(seconds), workers))
