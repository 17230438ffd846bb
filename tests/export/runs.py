"""What the tests of export do with a run and its bundle."""

from __future__ import annotations

from edgekd.bundle import close_bundle, read_manifest
from edgekd.export.make import export

REASON = "a test of the machinery"
ALL = ["onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"]


def quiet_export(target, **options):
    """Export without talk on stderr; returns the manifest and what was said."""
    said: list[str] = []
    return export(target, progress=said.append, **options), said


def drop(bundle, *names, **provenance):
    """Take artifacts out of a bundle again, as if they had never been made."""
    manifest = read_manifest(bundle)
    kept = {name: a for name, a in manifest.artifacts.items() if name not in names}
    changed = {**manifest.provenance, **provenance}
    close_bundle(bundle, manifest.model_copy(update={"artifacts": kept, "provenance": changed}))


def unaccept(bundle):
    """Take the reasons out of a bundle again, as if nobody had accepted anything."""
    manifest = read_manifest(bundle)
    artifacts = {
        name: artifact.model_copy(
            update={"gate": artifact.gate.model_copy(update={"accepted_because": None})}
        )
        for name, artifact in manifest.artifacts.items()
    }
    close_bundle(bundle, manifest.model_copy(update={"artifacts": artifacts}))


def unscore(bundle):
    """Forget the fp32 model's scores: those of `trained` are on labels that the data has not."""
    manifest = read_manifest(bundle)
    exact = manifest.artifacts["onnx-fp32"].model_copy(update={"scores": None})
    artifacts = {**manifest.artifacts, "onnx-fp32": exact}
    close_bundle(bundle, manifest.model_copy(update={"artifacts": artifacts}))


def rewrite_recipe(bundle, **changes):
    """Change keys of the recipe inside a bundle (`data` is merged), as a stranger could."""
    manifest = read_manifest(bundle)
    data = {**manifest.recipe["data"], **changes.pop("data", {})}
    recipe = {**manifest.recipe, **changes, "data": data}
    close_bundle(bundle, manifest.model_copy(update={"recipe": recipe}))
