"""The bundle: the one folder that crosses from the workstation to a device.

It describes itself (`manifest.json`), and every other file in it is listed there with its
sha256, so that nothing in it is opened before it has been verified.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import ValidationError

from edgekd import __version__
from edgekd.errors import BundleError
from edgekd.recipe_data import InputSpec
from edgekd.results import Record, Scores, dump_json
from edgekd.rundir import sha256, write_text

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
INPUT_NAME = "input"  # float32 (N, 3, size, size), RGB in [0, 1]
OUTPUT_NAME = "logits"  # float32 (N, ...), see Task.logits_shape; one class per image: (N, C)
# bench/ holds measurements made on the device after the bundle was closed
UNLISTED = ("bench",)

Verdict = Literal["passed", "refused", "inconclusive"]


class FileEntry(Record):
    sha256: str
    bytes: int


class ModelFacts(Record):
    """The network that is exported: no adapters, BatchNorm unfolded."""

    name: str
    arch: str
    params: int
    # multiply-accumulates of one image, by fvcore's rules; of an imported ONNX file those of its
    # convolutions and matrix products, 0 where they could not be counted
    macs: int
    role: Literal["student", "teacher", "model"]


class Check(Record):
    """One thing that a gate looked at."""

    # parity, parity-test, preprocessing, non-inferiority, evidence, sensitivity:<class>, mcnemar,
    # calibration:ece, calibration:brier (what each means and decides: export/gate.py)
    name: str
    verdict: Verdict | Literal["reported"]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    detail: str = ""


class Gate(Record):
    """The evidence on one artifact against the fp32 model."""

    verdict: Verdict
    checks: list[Check]
    images: int
    groups: int
    accepted_because: str | None = None  # --accept-inconclusive REASON

    @property
    def may_ship(self) -> bool:
        return self.verdict == "passed" or (
            self.verdict == "inconclusive" and bool((self.accepted_because or "").strip())
        )


class Artifact(Record):
    """One deployable form of the model."""

    name: str  # <target>-<precision>, e.g. openvino-int8
    file: str  # the file a runtime opens, relative to the bundle
    files: list[str]  # all files it consists of
    runtime: str  # the runtime plug-in that runs it
    precision: str  # fp32, fp16, int8, int8-aware, mixed
    made_from: str | None = None  # the artifact it was lowered from
    notes: list[str] = []
    float_layers: list[str] = []  # layers that stayed in float because of what was measured
    gate: Gate | None = None  # None: never judged, so it may not ship
    scores: Scores | None = None  # on the test part


class Manifest(Record):
    """What `manifest.json` says."""

    schema_version: int = SCHEMA_VERSION
    edgekd: str = __version__
    name: str
    task: str
    primary: str
    classes: list[str]
    input: InputSpec
    thresholds: dict[str, float] = {}
    model: ModelFacts
    opset: int
    artifacts: dict[str, Artifact] = {}
    recipe: dict[str, Any] = {}
    recipe_sha256: str = ""
    provenance: dict[str, Any] = {}  # versions, data fingerprint, weights hash, utc
    files: dict[str, FileEntry] = {}


def is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest only; `open_bundle` also verifies the files."""
    path = folder / MANIFEST
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} is damaged: {error}", hint="copy the bundle again, or run `edgekd export`"
        ) from None
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema version {version!r}; this edgekd {__version__} reads {SCHEMA_VERSION}"
        )
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {key}: {first['msg']}") from None


def open_bundle(folder: Path) -> Manifest:
    """Read the manifest and verify every listed file. Raises BundleError at the first mismatch."""
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = inside(folder, name)
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is missing", hint="copy the whole bundle again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise BundleError(
                f"{folder}: {name} has {size} bytes, the manifest says {entry.bytes} "
                "(truncated copy?)",
                hint="copy the whole bundle again",
            )
        if sha256(path) != entry.sha256:
            raise BundleError(
                f"{folder}: {name} is not the file that was exported (sha256 differs)",
                hint="copy the whole bundle again",
            )
    for artifact in manifest.artifacts.values():
        needed = {artifact.file, *artifact.files}
        if artifact.file.endswith(".xml"):  # OpenVINO opens the weights beside it by itself
            needed.add(artifact.file.removesuffix(".xml") + ".bin")
        for name in sorted(needed - set(manifest.files)):
            raise BundleError(f"{folder}: {name} is used by {artifact.name} but not listed")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_listed = name == MANIFEST or name in manifest.files
        if path.is_file() and not is_listed and not _is_unlisted(name):
            raise BundleError(
                f"{folder}: {name} is not listed in the manifest",
                hint="remove it, or copy the whole bundle again",
            )
    return manifest


def inside(folder: Path, name: str) -> Path:
    """Join a name from a manifest to its folder; refuses absolute paths, `..` and links out."""
    parts = PurePosixPath(name)
    path = folder / parts
    escapes = parts.is_absolute() or ".." in parts.parts or "\\" in name
    if escapes or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: the manifest names a file outside the bundle: {name}")
    return path


def close_bundle(folder: Path, manifest: Manifest) -> Manifest:
    """List and hash all files of the folder and write the manifest, last and atomically."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST and not _is_unlisted(name):
            files[name] = FileEntry(sha256=sha256(path), bytes=path.stat().st_size)
    closed = manifest.model_copy(update={"files": files})
    write_text(folder / MANIFEST, dump_json(closed))
    return closed


def _is_unlisted(name: str) -> bool:
    return PurePosixPath(name).parts[0] in UNLISTED
