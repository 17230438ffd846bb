"""The shape of the code: sizes, docstrings, and what start-up may import.

Which module may import which is import-linter's (`make lint`); this is what it cannot see.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgekd"
MAX_LINES = 300
TORCH_FOLDERS = ("train", "losses", "models")  # torch may stand at the top of these modules
# Everything that costs a noticeable part of a second, or that a device lacks
HEAVY = {
    "torch", "torchvision", "timm", "lightning_fabric", "fvcore", "safetensors", "nncf",
    "onnx", "onnxscript", "onnxruntime", "openvino", "sklearn", "scipy", "matplotlib", "pandas",
    "h5py", "jinja2", "optuna", "pydicom", "sqlalchemy", "tensorrt", "cuda",
}  # fmt: skip
START_UP = HEAVY | {"numpy", "PIL", "pydantic", "yaml"}


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 70  # the walk found the package
    return found


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_no_file_is_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    long = [f"{path.relative_to(ROOT)}: {n}" for path, n in lengths.items() if n > MAX_LINES]
    assert not long


def test_no_drawer_for_odds_and_ends() -> None:
    assert not [path for path in modules() if path.stem in ("utils", "util", "helpers", "misc")]


def test_every_module_says_what_it_is() -> None:
    assert not [path for path in modules() if not ast.get_docstring(tree_of(path))]


def top_level_imports(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """What importing a module imports: not inside functions, not for type checkers only."""
    for node in body:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from top_level_imports(node.body)
            yield from top_level_imports(node.orelse)
        elif isinstance(node, ast.Try):
            yield from top_level_imports([*node.body, *node.orelse, *node.finalbody])
        elif isinstance(node, (ast.ClassDef, ast.With)):
            yield from top_level_imports(node.body)


def test_heavy_imports_stand_inside_functions() -> None:
    found = []
    for path in modules():
        if path.relative_to(PACKAGE).parts[0] in TORCH_FOLDERS:
            continue
        for name, line in top_level_imports(tree_of(path).body):
            if name.split(".")[0] in HEAVY:
                found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not found


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a new interpreter has after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    names = json.loads(done.stderr.splitlines()[-1])
    return {name.split(".")[0] for name in names}


def test_the_command_line_starts_light() -> None:
    assert not START_UP & loaded_by("import edgekd.cli")


def test_help_starts_light() -> None:
    code = (
        "import sys; sys.argv = ['edgekd', '--help']\n"
        "from edgekd.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass"
    )
    assert not START_UP & loaded_by(code)


def test_recipe_and_bundle_start_without_the_heavy() -> None:
    code = "import edgekd.recipe_load, edgekd.bundle, edgekd.image, edgekd.stats"
    assert not HEAVY & loaded_by(code)
