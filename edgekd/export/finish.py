"""The last step of every bundle: what is generated from its manifest, then the list of files."""

from __future__ import annotations

from pathlib import Path

from edgekd.bundle import Manifest, close_bundle
from edgekd.export.card import model_card
from edgekd.export.sbom import sbom
from edgekd.results import dump_json
from edgekd.rundir import sha256, write_text

CARD, SBOM = "model-card.md", "sbom.cdx.json"


def finish(folder: Path, manifest: Manifest) -> Manifest:
    """Write the model card and the bill of materials, and close the bundle; unsigned."""
    models = sorted({name for artifact in manifest.artifacts.values() for name in artifact.files})
    hashes = {name: sha256(folder / name) for name in models}
    write_text(folder / CARD, model_card(manifest))
    write_text(folder / SBOM, dump_json(sbom(manifest, hashes)))
    return close_bundle(folder, manifest)
