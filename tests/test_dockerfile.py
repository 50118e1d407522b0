"""Dockerfile.gpu without an image engine: its build steps run here, offline, and what they install serves as in a container.

The paths of the image lie under a temporary folder; packages other than tensign are those of the test environment. What this
cannot show: the base image, Debian's packages, Python 3.12, and the packages of the gpu target.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import onnxruntime
import pytest
from packaging.requirements import Requirement

from dockerfile import Dockerfile
from tensign.demo import MODEL

ROOT = Path(__file__).resolve().parents[1]
FILE = Dockerfile(ROOT / "Dockerfile.gpu")
PACKAGES = str(Path(onnxruntime.__file__).parents[1])
SYSTEM = "/usr/local/bin:/usr/bin:/bin"
# Read-only but for R/tmp, as uid 10001, whom nothing is owned by.
SHUT_IN = (
    "R=$1; shift; mount --bind $R/tmp $R/tmp && mount -o remount,bind,ro /"
    ' && exec unshare --user --map-user=10001 --map-group=10001 "$@"'
)


def pins(name: str) -> dict[str, str]:
    """Versions by package, of requirements/NAME.txt."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return {package.lower().replace("_", "-"): version for package, _, version in (line.partition("==") for line in lines)}


@dataclass
class Image:
    """What the build steps left, under `root` as under / in an image."""

    root: Path

    def here(self, text: str) -> str:
        """The same with the image's paths where they are here."""
        return re.sub(r"(?<![\w./])/(?=(opt/tensign|dist|src|tmp|mnt/models)\b)", f"{self.root}/", text)

    def build(self, target: str) -> None:
        """Runs COPY and RUN of a stage and of those below it."""
        environment = {"PATH": f"{self.root / 'usr/bin'}:{SYSTEM}", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        environment = FILE.environment(target, environment)
        packages = self.root / "opt/tensign/lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        for word, rest in FILE.steps(target):
            if word == "COPY":
                *sources, place = rest.split()
                for source in sources:
                    self._copy(source, self.root / "src" / place)
            elif word == "RUN":
                command = self.here(rest)
                subprocess.run(["sh", "-ec", command], cwd=self.root / "src", env=environment, check=True)
                if packages.is_dir():
                    (packages / "packages.pth").write_text(PACKAGES)

    def _copy(self, source: str, place: Path) -> None:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)

    def environment(self, target: str) -> dict[str, str]:
        """As the container gets it: no HOME, and ports that are free."""
        environment = FILE.environment(target, {"PATH": SYSTEM})
        ports = {name: str(_free_port()) for name in environment if name.endswith("_PORT")}
        return {name: self.here(value) for name, value in environment.items()} | ports

    def shut_in(self, command: list[str]) -> list[str]:
        """A command as a container runs it that is started with --read-only --tmpfs /tmp."""
        return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SHUT_IN, "sh", str(self.root), *command]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The cpu target."""
    image = Image(tmp_path_factory.mktemp("image"))
    for folder in ("src", "tmp", "mnt"):
        (image.root / folder).mkdir()
    subprocess.run([sys.executable, "-m", "venv", image.root / "usr"], check=True)
    (tools,) = image.root.glob("usr/lib/*/site-packages")
    (tools / "packages.pth").write_text(PACKAGES)
    image.build("build-cpu")
    shutil.copytree(MODEL, image.root / "mnt/models")
    return image


@pytest.fixture
def running(image: Image) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The container's process, which is ready, and its environment."""
    environment = image.environment("cpu")
    if subprocess.run(image.shut_in(["true"]), env=environment, cwd="/", capture_output=True).returncode:
        pytest.skip("this kernel grants no user namespace with mounts of its own")
    command = image.shut_in([*FILE.command("cpu", "ENTRYPOINT"), *map(image.here, FILE.command("cpu", "CMD"))])
    said = image.root / "said"
    with said.open("w") as errors:
        server = subprocess.Popen(
            command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    try:
        assert server.stdout is not None
        assert " ready: grpc://" in server.stdout.readline(), said.read_text()
        yield server, environment
    finally:
        server.kill()
        server.communicate()


def test_it_serves_read_only_and_healthy_until_sigterm(
    image: Image, running: tuple[subprocess.Popen[str], dict[str, str]]
) -> None:
    server, environment = running

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        shut_in = image.shut_in([*command])
        return subprocess.run(shut_in, env=environment, cwd="/", capture_output=True, text=True)

    assert "Read-only" in run("touch", str(image.root / "opt/tensign/file")).stderr
    health = FILE.command("cpu", "HEALTHCHECK")
    assert health[0] == "sh"
    done = run(*health)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    answers = run(
        "python",
        "-c",
        f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{environment['TENSIGN_HTTP_PORT']}/metrics').status)",
    )
    assert answers.stdout == "200\n"
    doctor = run("tensign", "doctor")
    assert doctor.returncode == 0 and doctor.stdout.endswith("cpu runs on cpu\n") and "not writable" not in doctor.stdout
    tensign = run("python", "-c", "import tensign, tensign_converters; print(tensign.__file__, tensign_converters.__file__)")
    assert all(file.startswith(str(image.root / "opt/tensign/lib")) for file in tensign.stdout.split())

    server.terminate()
    assert server.wait(timeout=10) == 0
    assert not _session(server.pid)
    assert run(*health).returncode == 1


def _session(leader: int) -> list[str]:
    """Processes of a session that are still there."""
    stats = [path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [stat for stat in stats if int(stat.rpartition(")")[2].split()[3]) == leader]


def test_all_that_the_cpu_target_installs_is_pinned() -> None:
    pinned, waiting, seen = pins("light"), ["tensign"], set[str]()
    while waiting:
        name = waiting.pop()
        for requirement in map(Requirement, metadata.requires(name) or ()):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": "cpu" if name == "tensign" else ""})
            package = requirement.name.lower().replace("_", "-")
            if wanted and package not in seen:
                assert requirement.specifier.contains(pinned[package]), (
                    f"{name} wants {requirement}, pinned is {pinned.get(package)}"
                )
                seen.add(package)
                waiting.append(package)
    assert "onnxruntime" in seen


def test_what_the_gpu_target_installs_besides_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = map(Requirement, project["optional-dependencies"]["gpu"])
    pinned = pins("gpu")
    assert wanted.specifier.contains(pinned[wanted.name]) and wanted.extras == {"cuda", "cudnn"}
    assert {"nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-curand"} < set(pinned)
    assert not set(pinned) & set(pins("light"))
    (install,) = (rest for word, rest in FILE.stages["build-gpu"].steps if word == "RUN")
    assert "--constraint requirements/light.txt --constraint requirements/gpu.txt" in install and install.endswith('[gpu]"')


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_is_what_its_comment_says(target: str) -> None:
    environment = FILE.environment(target, {"PATH": SYSTEM})
    assert environment["TENSIGN_DEVICE"] == {"cpu": "cpu", "gpu": "cuda"}[target]
    assert int(FILE.last(target, "USER")) > 0
    ports = {environment["TENSIGN_HTTP_PORT"], environment["TENSIGN_GRPC_PORT"]}
    assert set(FILE.last(target, "EXPOSE").split()) == ports == {"8000", "8001"}
    assert FILE.command(target, "CMD") == ["/mnt/models"]
    assert FILE.last(target, "COPY") == f"--from=build-{target} /opt/tensign /opt/tensign"
    assert environment["PATH"].startswith("/opt/tensign/bin:") and environment["TENSIGN_CACHE_DIR"].startswith("/tmp/")
    (line,) = (line for line in FILE.text.splitlines() if line.endswith(f" tensign:{target}") and " -v " in line)
    assert all(f"-p {port}:{port}" in line for port in ports) and "--read-only --tmpfs /tmp" in line
    assert ("--gpus all" in line) == (target == "gpu")


def test_its_comment_names_what_an_operator_needs_besides() -> None:
    for option in (
        "--health-start-period",
        "--stop-timeout 30",
        "--gpus device=",
        "--ipc=host",
        "-v /path/to/cache:/tmp/tensign",
    ):
        assert f"#   {option}" in FILE.text
    assert "neither torch" in FILE.text and "gpu-decode" in FILE.text


def test_the_default_target_is_gpu_and_the_base_is_one_exact_tag() -> None:
    assert list(FILE.stages)[-1] == "gpu"
    (base,) = {stage.base for stage in FILE.stages.values()} - set(FILE.stages)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert f'base.name="docker.io/library/{base}"' in FILE.text


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [word for step, rest in FILE.steps("build") if step == "COPY" for word in rest.split()[:-1]]
    assert ignored[0] == "*" and {line[1:] for line in ignored if line.startswith("!")} == set(copied)
