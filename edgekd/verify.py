"""Is a bundle here what it was on the workstation: its files, its preprocessing, its outputs?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bundle import INPUT_NAME, Artifact
from edgekd.errors import BundleError, MissingOnHost
from edgekd.export.golden import FOLDER, Golden, compare, preprocess_all, read_golden
from edgekd.export.parity import PARITY, PIXELS, agrees
from edgekd.image import Float32
from edgekd.recommend import is_refused
from edgekd.runtimes.session import Target, find_bundle, open_session, resolve, runtime_class
from edgekd.signature import check_signature, is_signed

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


def verify(target: Path, key: Path | None = None) -> list[dict[str, Any]]:
    """Check signature and hashes, then the golden pictures in every artifact that can run here.

    With `key`, a public key in PEM form, the bundle must be signed by its owner. One row per thing
    that was looked at, with `check` (signature, files, preprocessing, artifact) and `result` (ok,
    failed, skipped). An fp32 artifact fails if its logits are off by more than 1e-3 of the largest,
    or its decisions are others (`parity.agrees`); an int8 one if its logits are not finite, or
    further off (`relative`) than at export by half and 2 % of the largest logit: then this
    processor computes something else than what the gate judged.

    Raises BundleError at the first file that is not as it was signed or exported, before any
    picture or model is opened, and what `check_signature` raises.
    """
    rows: list[dict[str, Any]] = []
    if target.is_dir():
        rows += _signature(find_bundle(target), key)
    found = resolve(target)
    if found.manifest is None:
        raise BundleError(f"{target} is a model file without a bundle: there is nothing to hold it "
                          "against")  # fmt: skip
    rows.append({"check": "files", "count": len(found.manifest.files), "result": OK})
    if not (found.folder / FOLDER / "images.json").is_file():
        reason = "the bundle has no golden pictures"
        return [*rows, {"check": "preprocessing", "result": SKIPPED, "reason": reason}]
    golden = read_golden(found.folder / FOLDER)
    size = found.manifest.input.size
    if golden.inputs.shape[1:] != (3, size, size):
        raise BundleError(f"{found.folder / FOLDER}: inputs {golden.inputs.shape}, but input.size "
                          f"in the manifest is {size}: expected (N, 3, {size}, {size})",
                          hint="export the bundle again")  # fmt: skip
    pixels = float(np.abs(preprocess_all(golden.pictures, found.manifest.input)
                          - golden.inputs).max())  # fmt: skip
    rows.append({"check": "preprocessing", "images": len(golden.pictures), "max_diff": pixels,
                 "limit": PIXELS, "result": OK if pixels <= PIXELS else FAILED})  # fmt: skip
    return rows + [_artifact(found, artifact, golden) for artifact in found.artifacts.values()]


def _signature(folder: Path, key: Path | None) -> list[dict[str, Any]]:
    row = {"check": "signature"}
    if key is not None:
        check_signature(folder, key)
        return [{**row, "key": str(key), "result": OK}]
    if not is_signed(folder):
        return []
    reason = "not checked: --key PUB.pem says whose it must be"
    return [{**row, "result": SKIPPED, "reason": reason}]


def _artifact(target: Target, artifact: Artifact, golden: Golden) -> dict[str, Any]:
    assert target.manifest is not None
    row: dict[str, Any] = {"check": "artifact", "artifact": artifact.name,
                           "runtime": artifact.runtime}  # fmt: skip
    if is_refused(artifact):
        return {**row, "result": SKIPPED, "reason": "refused by its gate"}
    probe = runtime_class(artifact.runtime).probe()
    if not probe.available:
        return {**row, "result": SKIPPED, "reason": probe.reason}
    try:
        with open_session(target, artifact=artifact.name) as session:

            def model(inputs: Float32) -> Float32:
                step = max(1, session.facts.inputs[INPUT_NAME][0])
                parts = [session.run({INPUT_NAME: inputs[start : start + step]})["logits"]
                         for start in range(0, len(inputs), step)]  # fmt: skip
                return np.concatenate(parts).astype(np.float32)

            assert session.task is not None  # it is None for a file without a manifest only
            result = compare(golden, target.manifest.input, model, session.task)
            ran = session.inspect().precision
    except MissingOnHost as error:
        return {**row, "result": SKIPPED, "reason": error.message}
    is_exact = artifact.precision == "fp32"
    checks = artifact.gate.checks if artifact.gate else []
    at_export = next((check.value for check in checks if check.name == "parity"), None)
    limit = PARITY if is_exact else None if at_export is None else 1.5 * at_export + 0.02
    as_before = limit is None or result.relative <= limit
    good = agrees(result) if is_exact else result.is_finite and as_before
    return {
        **row, "ran_in": ran, "images": result.images, "max_diff": result.logits,
        "relative": result.relative, "at_export": at_export, "limit": limit, "flips": result.flips,
        "result": OK if good else FAILED,
    }  # fmt: skip
