"""The device side runs where torch and everything that belongs to training cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_bundle import write_bundle

BLOCKED = (
    "torch", "torchvision", "timm", "lightning_fabric", "fvcore", "safetensors", "nncf", "onnx",
    "onnxscript",
)  # fmt: skip
# Python runs a sitecustomize of its own accord, in subprocesses of the subprocess too.
SITE = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device") / "bundle"
    write_bundle(folder, openvino=True)
    return folder


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which nothing of the workstation can be imported."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE)
    return {**os.environ, "PYTHONPATH": str(folder), "MPLCONFIGDIR": str(folder)}


def run(code: str, device: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=device, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", BLOCKED)
def test_the_blocker_blocks(package: str, device: dict[str, str]) -> None:
    code = f"import importlib.util; importlib.util.find_spec({package!r})"
    done = subprocess.run([sys.executable, "-c", code], env=device, capture_output=True, text=True)
    assert "(blocked)" in done.stderr


def test_every_module_of_the_device_side_can_be_imported(device: dict[str, str]) -> None:
    code = """
import importlib, pkgutil, edgekd
WORKSTATION = {"train", "losses", "models"}
names = [m.name for m in pkgutil.walk_packages(edgekd.__path__, "edgekd.",)
         if m.name.split(".")[1] not in WORKSTATION | {"__main__"}]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    assert int(run(code, device)) > 60


def test_bench_scores_and_names_what_to_deploy(bundle: Path, device: dict[str, str]) -> None:
    code = f"""
from pathlib import Path
from edgekd.bench.run import bench, recommend
from edgekd.bundle import read_manifest
folder = Path({str(bundle)!r})
rows = bench(folder, warmup=1, warmup_s=0, repeats=10, seconds=0)
print(sorted((row.artifact, row.peak_memory_mb is not None) for row in rows))
print(recommend(read_manifest(folder), rows).artifact is not None)
"""
    artifacts = ["onnx-fp32", "onnx-int8", "openvino-fp32"]
    expected = f"{[(name, True) for name in artifacts]}\nTrue\n"
    assert run(code, device) == expected


def test_accuracy_predict_and_verify(bundle: Path, device: dict[str, str]) -> None:
    code = f"""
import json
from pathlib import Path
from edgekd.bench.accuracy import find_images, score
from edgekd.host import host_facts
from edgekd.predict import predict
from edgekd.runtimes.session import open_session
from edgekd.verify import verify
folder = Path({str(bundle)!r})
with open_session(folder) as session:
    scores, _ = score(session, find_images(None, session.manifest), 8)
rows = list(predict(folder, [folder / "golden"], runtime="openvino"))
print(json.dumps({{"images": scores["accuracy"].images, "pictures": len(rows),
                  "verified": [row["result"] for row in verify(folder)],
                  "packages": sorted(host_facts()["packages"])}}))
"""
    found = json.loads(run(code, device))
    assert found["images"] > 0
    assert found["pictures"] == 8
    assert found["verified"] == ["ok"] * 5
    assert "edgekd" in found["packages"]


def edgekd(device: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekd", *arguments],
        env=device,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_of_the_device_run_from_end_to_end(
    bundle: Path, device: dict[str, str], tmp_path: Path
) -> None:
    quick = ["--warmup", "1", "--repeats", "10", "--seconds", "0", "--json"]
    done = edgekd(device, "bench", str(bundle), *quick)
    assert done.returncode == 0, done.stderr
    assert {row["artifact"] for row in json.loads(done.stdout)} >= {"onnx-fp32", "onnx-int8"}
    pictures = str(bundle / "golden")
    for command in (
        ["predict", str(bundle), pictures, "--json"],
        ["verify", str(bundle), "--json"],
        ["report", str(bundle), "--out", str(tmp_path / "report"), "--json"],
        ["doctor", "--json"],
        ["doctor", "runtimes", "--json"],
        ["recipes", "list", "--json"],
    ):
        done = edgekd(device, *command)
        assert done.returncode == 0, (command, done.stderr)
        assert json.loads(done.stdout), command
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.parametrize("command", [["distill", "quickstart"], ["doctor", "quickstart"]])
def test_what_needs_torch_says_so_with_exit_code_4(
    device: dict[str, str], command: list[str], tmp_path: Path
) -> None:
    done = edgekd(device, *command)
    assert done.returncode == 4
    assert "needs the package" in done.stderr
    assert "pip install 'edgekd[train]'" in done.stderr
    assert "Traceback" not in done.stderr
