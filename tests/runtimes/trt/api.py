"""What the real Python bindings of TensorRT say of themselves, read from the wheels at test time.

The wheels hold one extension module that is linked against TensorRT's libraries, which are not
here. It asks them for about ten C functions, so empty libraries of the same names let it be
imported, in a process of its own: every class, enum and signature can be read, and nothing run.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WHEELS = Path(sys.prefix) / "tensorrt-bindings"
VERSIONS = ("cu12", "cu13")  # 10.3.0 and the newest 11.x, as constraints/workstation.txt pins them
TOOLS = ("gcc", "nm", "readelf")
REPOSITORY = Path(__file__).parents[3]

DUMP = """
import json, sys
import tensorrt_bindings as trt
found = {"version": trt.__version__, "classes": {}, "functions": []}

def line(value):
    return (getattr(value, "__doc__", None) or "").strip().splitlines()

def add(name, cls):
    members = getattr(cls, "__members__", None) or {}
    facts = {"members": {key: int(value) for key, value in members.items()},
             "bases": [base.__name__ for base in cls.__bases__], "methods": {}, "properties": {}}
    found["classes"][name] = facts
    for key, value in vars(cls).items():
        if key in members or key.startswith("_") and key != "__init__":
            continue
        if isinstance(value, type):
            add(f"{name}.{key}", value)
        elif isinstance(value, property):
            text = "".join(line(value.fget))
            facts["properties"][key] = [text.rpartition("-> ")[2], value.fset is not None]
        elif callable(getattr(cls, key)):
            lines = [text.strip() for text in line(getattr(cls, key))]
            signatures = [text for text in lines
                          if text.split(". ", 1)[-1].startswith(key + "(") and "*args" not in text]
            facts["methods"][key] = signatures

for name in dir(trt):
    value = getattr(trt, name)
    if isinstance(value, type) and not name.startswith("_"):
        add(name, value)
    elif callable(value):
        found["functions"].append(name)
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: str  # as the bindings spell it, without the module
    is_optional: bool


def describe(version: str) -> dict[str, Any]:
    """All names and signatures of one version of the bindings; skips where they are not here."""
    return json.loads(run_with(version, DUMP))


@functools.cache
def _libraries(version: str) -> Path:
    """A folder of empty libraries that let this version's module be imported."""
    module = WHEELS / version / "tensorrt_bindings" / "tensorrt.so"
    folder = Path(tempfile.mkdtemp(prefix=f"edgekd-{version}-"))
    listing = _output("readelf", "-d", str(module))
    needed = re.findall(r"\(NEEDED\).*\[(libnv.+?)\]", listing)
    symbols = [
        text.split()[-1]
        for text in _output("nm", "-D", "--undefined-only", str(module)).splitlines()
        if text.split()[-2] == "U" and "@" not in text and not re.search(r" _?(Py|dl)", text)
    ]
    assert needed
    assert symbols
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in symbols))
    for name in needed:
        _output("gcc", "-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{name}",
                "-o", str(folder / name), str(source))  # fmt: skip
    return folder


def run_with(version: str, code: str) -> str:
    """What `code` prints in a process that can import `tensorrt_bindings` of this version."""
    if not (WHEELS / version / "tensorrt_bindings" / "tensorrt.so").is_file():
        pytest.skip(
            f"TensorRT's bindings are not in {WHEELS / version}: tools/tensorrt_bindings.sh"
        )
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"the bindings cannot be linked without {', '.join(missing)}")
    paths = [str(WHEELS / version), str(REPOSITORY)]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(_libraries(version)),
                   "PYTHONPATH": os.pathsep.join(paths)}  # fmt: skip
    return _output(sys.executable, "-c", code, environment=environment)


def signature(text: str) -> list[Parameter]:
    """`1. f(self: a.B, flags: int = 0) -> c.D` to its parameters, `self` left out."""
    inside = text[text.index("(") + 1 : text.rindex(")")]
    inside = inside if ") ->" not in text else text[text.index("(") + 1 : text.index(") ->")]
    parts: list[str] = []
    depth = 0
    for piece in re.split(r"([\[\](<>),])", inside):
        depth += (piece in "[(<" and piece != "") - (piece in "])>" and piece != "")
        if piece == "," and depth == 0:
            parts.append("")
            continue
        parts[-1:] = [(parts[-1] if parts else "") + piece]
    found = []
    for part in parts:
        name, _, rest = part.strip().partition(":")
        kind, _, default = rest.partition(" = ")
        if name and name != "self":
            found.append(Parameter(name.strip(), plain(kind), bool(default)))
    return found


def plain(kind: str) -> str:
    """A type without its module: `tensorrt_bindings.tensorrt.Dims`, `nvinfer1::Dims` to `Dims`."""
    kind = kind.strip().replace("tensorrt_bindings.tensorrt.", "")
    return re.sub(
        r"\b(nvinfer1|nvonnxparser)::I?(?=ParserError)|\b(nvinfer1|nvonnxparser)::", "", kind
    )


def _output(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
