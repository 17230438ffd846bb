"""The bill of materials: valid CycloneDX, complete, the same every time, and nobody's paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd import __version__
from edgekd.bundle import Manifest, open_bundle
from edgekd.export.finish import SBOM, finish
from edgekd.export.packages import licences, version_of, versions
from edgekd.export.sbom import sbom
from edgekd.results import Score, dump_json
from tests.tiny_bundle import write_bundle

PERSONAL = "/home/somebody/secret"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    made = write_bundle(tmp_path / "bundle", openvino=True)
    exact = made.artifacts["onnx-fp32"]
    score = Score(value=0.75, low=0.5, high=1.0, images=24, groups=12)
    nothing = Score(value=None, images=0, groups=0)
    scored = exact.model_copy(update={"scores": {"qwk": score, "auroc": nothing}})
    return made.model_copy(
        update={
            "artifacts": {**made.artifacts, "onnx-fp32": scored},
            "model": made.model.model_copy(update={"arch": f"file:{PERSONAL}/net.py:make"}),
            "recipe": {"data": {"name": "synthetic", "root": PERSONAL}},
            "provenance": {
                **made.provenance, "data_fingerprint": "ab" * 32, "versions": versions(),
                "utc": "2026-11-21T19:00:00Z",
            },
        }
    )  # fmt: skip


@pytest.fixture
def document(manifest: Manifest, tmp_path: Path) -> dict:
    finish(tmp_path / "bundle", manifest)
    return json.loads((tmp_path / "bundle" / SBOM).read_text())


def of_type(document: dict, kind: str) -> dict[str, dict]:
    return {c["name"]: c for c in document["components"] if c["type"] == kind}


def properties(component: dict) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in component["properties"]}


def check_schema(text: str) -> None:
    """Hold a document against the official schema, which cyclonedx-python-lib brings along."""
    import cyclonedx.schema
    from jsonschema import Draft7Validator
    from referencing import Registry, Resource

    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    schemas = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    assert len(schemas) > 5
    registry = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas
    )
    schema = next(s for s in schemas if s["$id"].endswith("bom-1.6.schema.json"))
    Draft7Validator(schema, registry=registry).validate(json.loads(text))


def test_it_is_valid_listed_and_hashed(document: dict, tmp_path: Path) -> None:
    check_schema((tmp_path / "bundle" / SBOM).read_text())
    assert SBOM in open_bundle(tmp_path / "bundle").files


def test_the_check_can_fail(document: dict) -> None:
    document["components"][0]["type"] = "model"
    with pytest.raises(Exception, match="model"):
        check_schema(json.dumps(document))


def test_every_model_file_with_its_hash_and_what_runs_it(document: dict, tmp_path: Path) -> None:
    manifest = open_bundle(tmp_path / "bundle")
    models = of_type(document, "machine-learning-model")
    assert sorted(models) == sorted(
        ["model.fp32.onnx", "model.int8.onnx", "openvino/model.fp32.bin", "openvino/model.fp32.xml"]
    )
    for name, component in models.items():
        assert component["hashes"] == [{"alg": "SHA-256", "content": manifest.files[name].sha256}]
    needs = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
    assert needs["model"] == [f"file:{name}" for name in sorted(models)]
    assert needs["file:model.int8.onnx"] == ["package:onnxruntime"]
    assert needs["file:openvino/model.fp32.bin"] == ["package:openvino"]
    references = [c["bom-ref"] for c in document["components"]] + ["model"]
    assert len(references) == len(set(references))
    assert {ref for refs in needs.values() for ref in refs} <= set(references)
    assert properties(models["model.int8.onnx"])["edgekd:artifact:onnx-int8"] == (
        "int8, onnxruntime, gate passed"
    )
    (metric,) = models["model.fp32.onnx"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metric == {"type": "qwk", "value": "0.75", "slice": "test",
                      "confidenceInterval": {"lowerBound": "0.5", "upperBound": "1"}}  # fmt: skip


def test_packages_with_versions_and_licences(document: dict) -> None:
    packages = of_type(document, "library")
    assert set(packages) == set(versions())
    assert packages["edgekd"]["version"] == __version__
    assert packages["edgekd"]["licenses"] == [{"expression": "Apache-2.0"}]
    needed = {name for name, package in packages.items() if package["scope"] == "required"}
    assert needed == {"onnxruntime", "openvino", "edgekd", "numpy", "pillow"}
    assert packages["numpy"]["purl"] == f"pkg:pypi/numpy@{version_of('numpy')}"


def test_a_version_that_is_not_the_installed_one_has_no_known_licence(manifest: Manifest) -> None:
    assert licences("numpy", "0.1") == []
    assert licences("no-such-package", None) == []
    elsewhere = {**manifest.provenance, "versions": {"torch": "2.6.0+cu124"}}
    tree = sbom(manifest.model_copy(update={"provenance": elsewhere}), {})
    torch = of_type(tree, "library")["torch"]
    assert torch["purl"] == "pkg:pypi/torch@2.6.0%2Bcu124"
    assert "licenses" not in torch


def test_the_data_set_by_its_fingerprint(document: dict, manifest: Manifest) -> None:
    (data,) = of_type(document, "data").values()
    assert data["name"] == "synthetic"
    assert data["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert properties(data)["edgekd:test_ids_sha256"] == manifest.provenance["test_ids_sha256"]
    card = document["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["datasets"] == [{"ref": "data"}]


def test_without_data_there_is_none(manifest: Manifest) -> None:
    bare = manifest.model_copy(update={"recipe": {}, "provenance": {}})
    tree = sbom(bare, {})
    assert of_type(tree, "data") == {}
    assert "timestamp" not in tree["metadata"]
    check_schema(dump_json(tree))


def test_no_path_of_the_workstation_travels(document: dict, tmp_path: Path) -> None:
    text = json.dumps(document)
    assert PERSONAL not in text
    assert str(tmp_path) not in text
    parameters = document["metadata"]["component"]["modelCard"]["modelParameters"]
    assert parameters["modelArchitecture"] == "file:net.py:make"


def test_the_same_again(document: dict, manifest: Manifest, tmp_path: Path) -> None:
    before = (tmp_path / "bundle" / SBOM).read_bytes()
    finish(tmp_path / "bundle", manifest)
    assert (tmp_path / "bundle" / SBOM).read_bytes() == before
    other = sbom(manifest.model_copy(update={"name": "other"}), {})
    assert other["serialNumber"] != document["serialNumber"]
