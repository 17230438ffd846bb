"""The bundle: the one folder that crosses from the workstation to a device.

It describes itself (`manifest.json`), and every other file in it is listed there with its
sha256, so that nothing in it is opened before it has been verified. Two things stay outside that
list: the signature (`signature.py`), which covers the manifest too, and measurements.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from edgekd import __version__
from edgekd.errors import BundleError
from edgekd.recipe_data import InputSpec
from edgekd.results import Learned, Record, Score, Scores, dump_json
from edgekd.rundir import sha256, write_text

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"
SCHEMA_VERSION = 2  # raise it with an entry in _UPGRADES and a manifest of the old one in the tests
INPUT_NAME = "input"  # float32 (N, 3, size, size), RGB in [0, 1]
OUTPUT_NAME = "logits"  # float32 (N, ...), see Task.logits_shape; one class per image: (N, C)
# bench/ holds measurements made on the device after the bundle was closed
UNLISTED = ("bench",)
AGAIN = "copy the whole bundle again"

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


class Rates(Record):
    """How an operating point does on some images; intervals are over groups."""

    sensitivity: Score  # the share of the class's images that are flagged
    specificity: Score  # the share of the other images that are not


class OperatingPoint(Record):
    """A class is flagged where its probability is at least `threshold`, whatever is decided."""

    threshold: float = Field(ge=0, le=1, allow_inf_nan=False)
    aim: Literal["sensitivity", "specificity"] | None = None  # what it was chosen for
    at_least: float | None = None  # what that was to be on the validation images
    validation: Rates | None = None  # of the fp32 model, on the images that it was chosen on
    test: dict[str, Rates] = {}  # by artifact; no test image had a part in the choice


class Manifest(Record):
    """What `manifest.json` says."""

    schema_version: int = SCHEMA_VERSION
    edgekd: str = __version__
    name: str
    task: str
    primary: str
    classes: list[str]
    input: InputSpec
    thresholds: dict[str, OperatingPoint] = {}  # by class
    learned: Learned = Learned()  # what the task needs to decide and to score as it was trained
    model: ModelFacts
    opset: int
    artifacts: dict[str, Artifact] = {}
    recipe: dict[str, Any] = {}
    recipe_sha256: str = ""
    provenance: dict[str, Any] = {}  # versions, data fingerprint, weights hash, git state, utc
    files: dict[str, FileEntry] = {}

    @field_validator("thresholds", "learned")
    @classmethod
    def _are_of_classes(cls, found: Any, info: ValidationInfo) -> Any:
        classes = info.data.get("classes", [])
        if isinstance(found, Learned):
            return found.of_classes(len(classes))
        for label in set(found).difference(classes):
            raise ValueError(f"there is no class '{label}'")
        return found


def is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest only; `open_bundle` also verifies the files."""
    path = folder / MANIFEST
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged: {error}", hint="copy the bundle again, or run `edgekd export`"
        ) from None
    tree = _of_this_schema(tree, path)
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {key}: {first['msg']}", hint=AGAIN) from None


def _of_this_schema(tree: Any, path: Path) -> dict[str, Any]:
    """The manifest in the form of SCHEMA_VERSION. Raises BundleError for one that is newer."""
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if type(version) is not int or version < 1:  # True is an int to Python
        raise BundleError(f"{path}: {version!r} is no schema version; this edgekd {__version__} "
                          f"reads 1 to {SCHEMA_VERSION}")  # fmt: skip
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema version {version} is newer than this edgekd {__version__}, which "
            f"reads 1 to {SCHEMA_VERSION}",
            hint="pip install -U edgekd",
        )
    for older in range(version, SCHEMA_VERSION):
        tree = {**_UPGRADES[older](tree), "schema_version": older + 1}
    return dict(tree)


def _from_1(tree: dict[str, Any]) -> dict[str, Any]:
    """Thresholds were bare numbers, with nothing measured at them."""
    old = tree.get("thresholds")
    if not isinstance(old, dict):
        return tree
    return {**tree, "thresholds": {label: {"threshold": value} for label, value in old.items()}}


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def open_bundle(folder: Path) -> Manifest:
    """Read the manifest and verify every file. Raises BundleError at the first mismatch.

    Nothing but the manifest is interpreted; all other files are only hashed.
    """
    manifest = read_manifest(folder)
    present = members(folder)
    _check_names(folder, manifest)
    for name, entry in manifest.files.items():
        path = inside(folder, name)
        if name not in present:
            raise BundleError(f"{folder}: {name} is missing", hint=AGAIN)
        size = path.stat().st_size
        if size != entry.bytes:
            raise BundleError(
                f"{folder}: {name} has {size} bytes, the manifest says {entry.bytes} "
                "(truncated copy?)",
                hint=AGAIN,
            )
        if sha256(path) != entry.sha256:
            raise BundleError(f"{folder}: {name} is not the file that was exported (sha256 "
                              "differs)", hint=AGAIN)  # fmt: skip
    for artifact in manifest.artifacts.values():
        needed = {artifact.file, *artifact.files}
        if artifact.file.endswith(".xml"):  # OpenVINO opens the weights beside it by itself
            needed.add(artifact.file.removesuffix(".xml") + ".bin")
        for name in sorted(needed - set(manifest.files)):
            raise BundleError(f"{folder}: {name} is used by {artifact.name} but not listed")
    for name in present:
        if name not in (MANIFEST, SIGNATURE, *manifest.files) and not is_unlisted(name):
            raise BundleError(f"{folder}: {name} is not listed in the manifest",
                              hint="remove it, or copy the whole bundle again")  # fmt: skip
    return manifest


def _check_names(folder: Path, manifest: Manifest) -> None:
    """No name may mean another file elsewhere, or one that changes after the bundle was closed."""
    seen: dict[str, str] = {}
    for name in manifest.files:
        inside(folder, name)
        if name in (MANIFEST, SIGNATURE) or is_unlisted(name):
            raise BundleError(f"{folder}: the manifest lists {name}, which cannot be listed")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise BundleError(f"{folder}: the manifest lists {other} and {name}, one file on some "
                              "systems")  # fmt: skip


def members(folder: Path) -> dict[str, Path]:
    """Every file below the folder by its name in it, sorted; none is opened.

    Raises BundleError for a link, which could lead a reader, or `bench` as it writes, out of the
    folder, and for what is neither a file nor a folder (a pipe has no end).
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise BundleError(f"{folder}: {name} is a link, and a bundle has none",
                              hint="copy the whole bundle again, with what its links lead to"
                              )  # fmt: skip
        if stat.S_ISREG(mode):
            found[name] = path
        elif not stat.S_ISDIR(mode):
            raise BundleError(f"{folder}: {name} is neither a file nor a folder", hint=AGAIN)
    return found


def inside(folder: Path, name: str) -> Path:
    """Join a name from a manifest to its folder; refuses absolute paths, `..` and links out."""
    parts = PurePosixPath(name)
    is_plain = parts.as_posix() == name != "." and "\0" not in name and "\\" not in name
    is_absolute = parts.is_absolute() or bool(PureWindowsPath(name).drive)
    path = folder / parts
    if (
        not is_plain
        or is_absolute
        or ".." in parts.parts
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        raise BundleError(f"{folder}: the manifest names a file outside the bundle: {name!r}")
    return path


def close_bundle(folder: Path, manifest: Manifest) -> Manifest:
    """List and hash all files of the folder and write the manifest, last and atomically.

    A signature goes, since it is of what was there before.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    files = {}
    for name, path in members(folder).items():
        if name != MANIFEST and not is_unlisted(name):
            files[name] = FileEntry(sha256=sha256(path), bytes=path.stat().st_size)
    closed = manifest.model_copy(update={"files": files})
    write_text(folder / MANIFEST, dump_json(closed))
    return closed


def is_unlisted(name: str) -> bool:
    """Whether a file is outside of what is hashed and signed: measurements."""
    return PurePosixPath(name).parts[0] in UNLISTED
