"""`sbom.cdx.json`: what a bundle consists of and what made it, as CycloneDX 1.6 has it.

The same manifest on the same installation gives the same bytes. Names in it are the bundle's own:
no path, host or user. https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from edgekd import __version__
from edgekd.bundle import Artifact, Manifest
from edgekd.export.packages import licences, version_of
from edgekd.results import Scores, dump_json

SPEC = "1.6"
MODEL, DATA = "model", "data"  # references inside the document
ALWAYS = ("edgekd", "numpy", "pillow")  # what runs a model on a device needs these too
DIGESTS = ("data_fingerprint", "data_ids_sha256", "test_ids_sha256", "other_ids_sha256")

Tree = dict[str, Any]


def sbom(manifest: Manifest, hashes: Mapping[str, str]) -> Tree:
    """The document. `hashes` has the sha256 of every model file, by its name in the bundle."""
    runs = sorted({*ALWAYS, *(artifact.runtime for artifact in manifest.artifacts.values())})
    made = dict(manifest.provenance.get("versions") or {})
    packages = {name: made.get(name) or version_of(name) for name in sorted({*made, *runs})}
    files = {name: [a for a in manifest.artifacts.values() if name in a.files]
             for name in sorted(hashes)}  # fmt: skip
    data = _data(manifest)
    document: Tree = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {
            "tools": {"components": [_tool()]},
            "component": _model(manifest, has_data=bool(data)),
        },
        "components": [
            *(_file(name, hashes[name], artifacts) for name, artifacts in files.items()),
            *data,
            *(_package(name, version, is_made=name in made, is_run=name in runs)
              for name, version in packages.items()),
        ],
        "dependencies": [
            {"ref": MODEL, "dependsOn": [_file_ref(name) for name in files]},
            *({"ref": _file_ref(name),
               "dependsOn": sorted({_package_ref(a.runtime) for a in artifacts})}
              for name, artifacts in files.items()),
        ],
    }  # fmt: skip
    if "utc" in manifest.provenance:
        document["metadata"]["timestamp"] = manifest.provenance["utc"]
    digest = hashlib.sha256(dump_json(document).encode()).digest()
    document["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=5)}"
    return document


def _tool() -> Tree:
    return {"type": "application", "name": "edgekd", "version": __version__}


def _model(manifest: Manifest, *, has_data: bool) -> Tree:
    facts = manifest.model
    parameters: Tree = {"approach": {"type": "supervised"}, "task": manifest.task,
                        "modelArchitecture": _without_folders(facts.arch)}  # fmt: skip
    if has_data:
        parameters["datasets"] = [{"ref": DATA}]
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": manifest.name,
        "modelCard": {"modelParameters": parameters},
        "properties": _properties({
            "model": facts.name, "role": facts.role, "params": facts.params, "macs": facts.macs,
            "classes": ", ".join(manifest.classes), "opset": manifest.opset,
            "recipe_sha256": manifest.recipe_sha256 or "none",
        }),
    }  # fmt: skip


def _file(name: str, sha256: str, artifacts: list[Artifact]) -> Tree:
    """One file of a model; what was measured stands with the file that a runtime opens."""
    component: Tree = {
        "type": "machine-learning-model",
        "bom-ref": _file_ref(name),
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "properties": _properties({
            f"artifact:{a.name}": f"{a.precision}, {a.runtime}, "
                                  f"gate {a.gate.verdict if a.gate else 'none'}"
            for a in artifacts
        }),
    }  # fmt: skip
    opened = next((a for a in artifacts if a.file == name and a.scores), None)
    if opened is not None and opened.scores is not None:
        metrics = _metrics(opened.scores)
        component["modelCard"] = {"quantitativeAnalysis": {"performanceMetrics": metrics}}
    return component


def _metrics(scores: Scores) -> list[Tree]:
    found = []
    for name, score in sorted(scores.items()):
        if score.value is None:
            continue
        metric: Tree = {"type": name, "value": f"{score.value:.6g}", "slice": "test"}
        if score.low is not None and score.high is not None:
            metric["confidenceInterval"] = {"lowerBound": f"{score.low:.6g}",
                                            "upperBound": f"{score.high:.6g}"}  # fmt: skip
        found.append(metric)
    return found


def _data(manifest: Manifest) -> list[Tree]:
    """The data set, by name and digests; [] where the model came without one."""
    known = {key: manifest.provenance[key] for key in DIGESTS if key in manifest.provenance}
    name = manifest.recipe.get("data", {}).get("name")
    if not known or not name:
        return []
    component: Tree = {
        "type": "data",
        "bom-ref": DATA,
        "name": str(name),
        "data": [{"type": "dataset", "name": str(name)}],
        "properties": _properties(known),
    }
    fingerprint = str(known.get("data_fingerprint", ""))
    if re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        component["hashes"] = [{"alg": "SHA-256", "content": fingerprint}]
    return [component]


def _package(name: str, version: str | None, *, is_made: bool, is_run: bool) -> Tree:
    """`scope` says whether the device needs it; what only made the model is `excluded`."""
    component: Tree = {
        "type": "library",
        "bom-ref": _package_ref(name),
        "name": name,
        "scope": "required" if is_run else "excluded",
        "purl": f"pkg:pypi/{name}" + (f"@{quote(version, safe='')}" if version else ""),
        "properties": _properties({"made": is_made, "runs": is_run}),
    }
    if version:
        component["version"] = version
    found = licences(name, version)
    if found:
        component["licenses"] = found
    return component


def _properties(values: Mapping[str, object]) -> list[Tree]:
    return [{"name": f"edgekd:{key}", "value": str(value).lower() if isinstance(value, bool)
             else str(value)} for key, value in values.items()]  # fmt: skip


def _file_ref(name: str) -> str:
    return f"file:{name}"


def _package_ref(name: str) -> str:
    return f"package:{name}"


def _without_folders(arch: str) -> str:
    """Paths of this machine mean nothing elsewhere; an ensemble names several."""
    return re.sub(r"\b(file|onnx):([^, ]+)", lambda m: f"{m[1]}:{PurePath(m[2]).name}", arch)
