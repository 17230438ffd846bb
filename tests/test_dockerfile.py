"""Dockerfile.jetson: its steps, followed in a clean environment of this machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.bundle import close_bundle
from tests.tiny_bundle import write_bundle

ROOT = Path(__file__).parents[1]
FILE = ROOT / "Dockerfile.jetson"
# the same packages in the versions of this machine's Python, which are in uv's cache
PINS = ROOT / "constraints/workstation.txt"


def instructions() -> list[tuple[str, str]]:
    """The file's instructions in order, with their arguments on one line."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def runs() -> list[list[str]]:
    """The commands of all RUN instructions."""
    return [shlex.split(part) for word, rest in instructions() if word == "RUN"
            for part in rest.split("&&")]  # fmt: skip


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, FILE], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    walked = 0
    for word, rest in instructions():
        if word != "COPY" or rest.startswith("--from"):
            continue
        for source in rest.split()[:-1]:
            path = source.replace("${PINS}", "constraints/device-py310-aarch64.txt")
            assert (ROOT / path).exists(), path
            assert f"!{Path(path).parts[0]}" in ignored, path
            walked += 1
    assert walked >= 6


def test_it_ends_as_an_unprivileged_user_with_a_health_check() -> None:
    words = dict(instructions())
    assert words["USER"].split(":")[0].isdecimal()
    assert words["USER"] != "0"
    assert "edgekd doctor" in words["HEALTHCHECK"]
    assert "edgekd verify /data/bundle" in words["HEALTHCHECK"]
    assert words["ENTRYPOINT"] == '["edgekd"]'


def test_nothing_is_installed_that_brings_torch() -> None:
    installs = [command for command in runs() if "install" in command and "pip" in command[0]]
    assert len(installs) == 2
    assert all("--constraint" in command for command in installs)
    assert "edgekd[dicom,onnxruntime,sign]" in installs[1]
    named = {word for command in installs for word in command if not word.startswith("-")}
    assert not any(re.search(r"\[.*(train|export|all).*\]", word) for word in named)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a virtual environment made as the file makes it; without the network."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".uv/bin"))
    if uv is None:
        pytest.skip("uv is not on PATH: nothing is cached to install from")
    folder = tmp_path_factory.mktemp("clean")
    wheels = folder / "wheels"
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels],
                   cwd=ROOT, check=True, capture_output=True)  # fmt: skip
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    extras = next(word for command in runs() for word in command if word.startswith("edgekd["))
    for wanted in (*wheels.glob("*.whl"), extras):
        done = subprocess.run(
            [uv, "pip", "install", "--offline", "--quiet", "--python", python,
             "--constraint", PINS, wanted],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"uv's cache lacks what the device side needs: {done.stderr.strip()[:200]}")
    return folder / "venv"


def test_the_checks_of_the_file_pass_there(clean: Path) -> None:
    checks = [command for command in runs() if command[0].startswith("/opt/edgekd/bin/")
              and "pip" not in command[0]]  # fmt: skip
    assert len(checks) == 2
    for command in checks:
        program, *arguments = command
        own = clean / "bin" / Path(program).name
        words = [word for word in arguments if word not in (">", "/dev/null")]
        subprocess.run([own, *words], check=True, capture_output=True)


BLOCKED = """
import socket
def refuse(*_, **__): raise SystemExit("the network was used")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
"""


def test_all_that_a_device_does_works_there_without_a_network(clean: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    manifest = write_bundle(bundle)
    close_bundle(bundle, manifest.model_copy(update={"recipe": {}}))
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
    picture = next((bundle / "golden").glob("*.png"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}
    commands = [
        ["doctor"], ["verify", bundle], ["bench", bundle, "--repeats", "10"],
        ["predict", bundle, picture, "--json"], ["lint", bundle / "model.fp32.onnx"],
        ["report", bundle, "--out", tmp_path / "report"],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run([clean / "bin/edgekd", *command], env=environment, cwd=tmp_path,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
    done = subprocess.run(
        [clean / "bin/edgekd", "export", bundle, "--make", "tensorrt-int8"], env=environment,
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr  # there is no TensorRT here
    assert "tensorrt" in done.stderr


def test_the_health_check_passes_on_a_good_bundle_and_fails_on_a_damaged_one(
    clean: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    write_bundle(bundle)
    edgekd = clean / "bin" / "edgekd"
    for command in (["doctor"], ["verify", bundle], ["bench", bundle, "--repeats", "10"]):
        done = subprocess.run([edgekd, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (bundle / "golden/inputs.npy").write_bytes(b"damaged")
    done = subprocess.run([edgekd, "verify", bundle], capture_output=True, text=True, check=False)
    assert done.returncode == 2
