"""tensign bench as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tensign.demo import MODEL

QUICK = ("--requests", "20", "--warmup", "0")


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tensign", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "120"})


def test_a_directory_is_served_for_the_time_and_json_tells_all() -> None:
    done = bench(MODEL, *QUICK, "--encoded", "--stream", "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "\n" in done.stdout.strip()
    (report,) = told["reports"]
    assert report["load"]["streams"] == 1 and report["load"]["encoded"] and report["errors"] == {}
    assert report["rows_per_s"] > 0 and report["latency"]["samples"] == 20
    assert told["targets"][0]["model"]["name"] == "efficientnet-lite0" and told["targets"][0]["model"]["device"] == "cpu"
    assert told["versions"]["grpcio"] and told["machine"]["cores"] > 0


def test_a_table_for_people_a_kept_result_and_its_picture(mean_address: str, tmp_path: Path) -> None:
    kept, picture, again = tmp_path / "kept.json", tmp_path / "picture.png", tmp_path / "again.png"
    done = bench(mean_address, "--sweep", "1,4", *QUICK, "--keep", kept, "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert all(column in done.stdout for column in ("in flight", "images/s", "p99 ms", "rows of a batch", "infer ms"))
    assert [report["load"]["concurrency"] for report in json.loads(kept.read_text())["reports"]] == [1, 4]
    assert bench(kept, "--plot", again).returncode == 0
    assert again.read_bytes() == picture.read_bytes()


def test_one_run_tells_percentiles_and_how_the_generator_fared(mean_address: str) -> None:
    done = bench(mean_address, "--rate", "100", "--duration", "1", "--warmup", "0", "--streams", "2", "--rows", "2")
    assert done.returncode == 0, done.stderr
    assert "open loop at 100 requests/s, over 2 streams, 2 rows of raw tensors, 1.0 s" in done.stdout
    assert all(name in done.stdout for name in ("mean ", "p50 ", "p99.9 ", "late sends p99"))


def test_a_search_shows_each_probe_and_the_answer(mean_address: str) -> None:
    done = bench(mean_address, "--p99-under", "300", "--requests", "100", "--duration", "0.1", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    assert "missed" in done.stderr and "kept" in done.stderr
    assert "requests/s keep p99 under 300 ms" in done.stdout


def test_a_comparison_of_a_server_with_itself(mean_address: str) -> None:
    done = bench(mean_address, "--against", mean_address, "--rounds", "3", "--requests", "150", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    assert f"{mean_address} (2)" in done.stdout and "spread" in done.stdout
    assert all(figure in done.stdout for figure in ("images/s", "p50 ms", "p99 ms"))


def test_pictures_of_a_folder_or_a_glob_and_failures_in_the_exit_code(
    demo_address: str, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "good.jpg").write_bytes(pictures[0].read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = bench(demo_address, *QUICK, "--images", tmp_path, "--json")
    assert done.returncode == 1
    assert "error: 10 of 20 requests failed with UndecodableImage, the first: " in done.stderr
    assert json.loads(done.stdout)["reports"][0]["latency"]["samples"] == 10
    assert bench(demo_address, *QUICK, "--images", f"{tmp_path}/*.jpg").returncode == 0
    assert "no file there" in bench(demo_address, "--images", f"{tmp_path}/*.gif").stderr


def test_ctrl_c_shows_what_was_measured_until_then(mean_address: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    command = [sys.executable, "-m", "tensign", "bench", mean_address, "--p99-under", "500", "--keep", str(kept)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        first = running.stderr.readline()
        running.send_signal(signal.SIGINT)
        told, said = running.stdout.read(), running.stderr.read()
    assert "missed" in first
    assert running.returncode == 1, said
    assert "error: interrupted" in said
    assert "the search for p99 under 500 ms did not finish; it held at" in told
    assert json.loads(kept.read_text())["reports"][-1]["stopped"] == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere: no such directory, and no host:port either"),
        (("127.0.0.1:1",), "127.0.0.1:1:"),
        (("127.0.0.1:1", "--sweep", "1", "--p99-under", "5"), "exclude each other"),
        (("127.0.0.1:1", "--sweep", "one"), "--sweep: wanted numbers with commas between them, got one"),
        (("127.0.0.1:1", "--rate", "-3"), "rate: wanted more than 0"),
        (("127.0.0.1:1", "--plot", "x.gif"), "plot: wanted a file that ends in .svg or .png"),
        (("kept.json",), "kept.json: a kept result can be drawn again; say --plot FILE"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"a": 1}')
    done = bench(tmp_path / "other.json", "--plot", tmp_path / "x.png")
    assert done.returncode == 2
    assert "other.json: no result of tensign bench" in done.stderr


def test_help_names_the_extra() -> None:
    assert "tensign[plot]" in bench("--help").stdout
