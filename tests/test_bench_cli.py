"""tensign bench as a user types it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tensign.demo import MODEL

QUICK = ("--requests", "20", "--warmup", "0")


def bench(*arguments: str | Path, columns: int = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tensign", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": str(columns)})


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
    done = bench(mean_address, "--p99-under", "300", "--duration", "0.5", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    first, *probes = done.stderr.splitlines()
    assert re.fullmatch(r"mostly 8 to 16 probes of about 0.5 s each: 4 s to 8 s; Ctrl-C tells what .*", first)
    assert all(re.search(r"missed \(.*%\)  (kept|broken)", probe) for probe in probes if not probe.startswith("note: "))
    assert "requests/s keep p99 under 300 ms" in done.stdout


def test_a_comparison_of_a_server_with_itself(mean_address: str) -> None:
    done = bench(mean_address, "--against", mean_address, "--rounds", "3", "--requests", "150", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"A  {mean_address} (1)\nB  {mean_address} (2)")
    verdict = "no measurable difference|A is higher|A is lower"
    assert len(re.findall(rf"^(?:images/s|p50 ms|p99 ms) .* \.\. [0-9.]+  (?:{verdict}) *$", done.stdout, re.MULTILINE)) == 3
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
    (tmp_path / "notes.txt").write_text("not asked for")
    (tmp_path / "deep").mkdir()
    (tmp_path / "bad.png").rename(tmp_path / "deep" / "bad.png")
    assert bench(demo_address, *QUICK, "--images", tmp_path).stderr.count("10 of 20 requests failed") == 1
    for given, said in ((f"{tmp_path}/*.gif", "no file of that pattern"), ("none.jpg", "--images: none.jpg: No such file")):
        assert said in bench(demo_address, "--images", given).stderr


def test_tables_fit_a_terminal_and_nothing_stands_before_them(mean_address: str, mean_model: Path) -> None:
    done = bench(mean_address, "--against", mean_model, "--rounds", "1", *QUICK, "--device", "cpu", columns=80)
    assert done.returncode == 0, done.stderr
    tables = [line for line in done.stdout.splitlines() if not line.startswith("note: ")]
    assert tables[0].startswith("A  ") and max(map(len, tables)) <= 80
    assert [line.split()[0] for line in tables if line] == ["A", "B", "target", "A", "B", "median", "images/s", "p50"]
    assert "too few rounds to tell" in done.stdout and done.stderr == ""
    one = bench(mean_address, *QUICK, columns=80)
    assert one.stdout.startswith("load ") and one.stderr == ""
    assert re.search(r"^latency ms  mean .* p95 \S+ *\n +p99 .* max \S+ *$", one.stdout, re.MULTILINE)


def test_ctrl_c_shows_what_was_measured_until_then(mean_address: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    command = [sys.executable, "-m", "tensign", "bench", mean_address, "--p99-under", "500", "--keep", str(kept)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        assert "probes" in running.stderr.readline()
        first = running.stderr.readline()
        running.send_signal(signal.SIGINT)
        told, said = running.stdout.read(), running.stderr.read()
    assert "missed" in first
    assert running.returncode == 130, said
    assert "interrupted: this is what was measured until then" in said
    assert "the search for p99 under 500 ms did not finish" in told
    assert json.loads(kept.read_text())["reports"][-1]["stopped"] == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere: no such directory, and no host:port either"),
        (("127.0.0.1:1",), "127.0.0.1:1:"),
        (("127.0.0.1:1", "--sweep", "1", "--p99-under", "5"), "--sweep and --p99-under exclude each other"),
        (("127.0.0.1:1", "--sweep", "one"), "--sweep: wanted whole numbers with commas between them, got one"),
        (("127.0.0.1:1", "--sweep", "1.5"), "--sweep: wanted whole numbers with commas between them, got 1.5"),
        (("127.0.0.1:1", "--sweep", "0,1"), "--sweep: wanted more than 0 to 1,000,000, got 0"),
        (("127.0.0.1:1", "--sweep-rates", "5,nan"), "--sweep-rates: wanted more than 0 to 1,000,000, got nan"),
        (("127.0.0.1:1", "--rate", "-3"), "--rate: wanted more than 0 to 1,000,000, got -3"),
        (("127.0.0.1:1", "--duration", "0"), "--duration: wanted more than 0 to 1,000,000, got 0"),
        (("127.0.0.1:1", "--timeout", "inf"), "--timeout: wanted more than 0 to 1,000,000, got inf"),
        (("127.0.0.1:1", "--warmup", "nan"), "--warmup: wanted 0 to 1,000,000, got nan"),
        (("127.0.0.1:1", "--p99-under", "nan"), "--p99-under: wanted more than 0 to 1,000,000, got nan"),
        (("127.0.0.1:1", "--p99-under", "0"), "--p99-under: wanted more than 0 to 1,000,000, got 0"),
        (("127.0.0.1:1", "--sweep", "1", "--rate", "5"), "--rate: cannot apply with --sweep"),
        (("127.0.0.1:1", "--rate", "5", "--concurrency", "4"), "--concurrency: cannot apply with --rate"),
        (("127.0.0.1:1", "--requests", "5", "--duration", "4"), "--duration: cannot apply with --requests"),
        (("127.0.0.1:1", "--stream", "--streams", "4"), "--stream: cannot apply with --streams"),
        (("127.0.0.1:1", "--rounds", "5"), "--rounds: cannot apply without --against"),
        (("127.0.0.1:1", "--device", "cpu"), "--device: cannot apply to a server that runs already"),
        (("kept.json", "--json", "--plot", "x.png"), "--json: cannot apply to kept.json, a kept result"),
        (("127.0.0.1:1", "--keep", "/nowhere/x.json"), "--keep: /nowhere/x.json: No such file or directory"),
        (("127.0.0.1:1", "--keep", "x.txt"), "--keep: wanted a file that ends in .json, got x.txt"),
        (("127.0.0.1:1", "--plot", "/nowhere/x.png"), "--plot: /nowhere/x.png: No such file or directory"),
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
