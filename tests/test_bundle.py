"""A bundle is verified before anything in it is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle import Gate, open_bundle
from edgekd.errors import BundleError
from tests.tiny_bundle import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    write_bundle(folder)
    open_bundle(folder)
    return folder


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def refused(bundle: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle)


def test_an_altered_a_cut_and_a_missing_file_are_told_apart(bundle: Path) -> None:
    model = bundle / "model.fp32.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + b"?")
    refused(bundle, "sha256 differs")
    model.write_bytes(whole[:-10])
    refused(bundle, "truncated")
    model.unlink()
    refused(bundle, "is missing")


def test_a_file_that_is_not_listed_is_refused(bundle: Path) -> None:
    (bundle / "golden" / "extra.png").write_bytes(b"x")
    refused(bundle, "golden/extra.png is not listed")


def test_measurements_may_be_added(bundle: Path) -> None:
    (bundle / "bench").mkdir(exist_ok=True)
    (bundle / "bench" / "device.jsonl").write_text("")
    open_bundle(bundle)


def test_what_an_artifact_opens_must_be_listed(bundle: Path) -> None:
    edit(bundle, lambda tree: tree["artifacts"]["onnx-fp32"].update(file="bench/evil.onnx"))
    refused(bundle, r"bench/evil\.onnx is used by onnx-fp32 but not listed")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside", "a\\b"])
def test_names_that_lead_out_are_refused(bundle: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    edit(bundle, lambda tree: tree["files"].update({name: entry}))
    refused(bundle, "outside the bundle")


def test_a_manifest_of_another_schema_says_which(bundle: Path) -> None:
    edit(bundle, lambda tree: tree.update(schema_version=9))
    refused(bundle, "schema version 9")


def test_an_inconclusive_gate_ships_only_with_a_reason() -> None:
    def ships(**more: Any) -> bool:
        return Gate(verdict="inconclusive", checks=[], images=1, groups=1, **more).may_ship

    assert ships(accepted_because="trial, protocol 7")
    assert not ships()
    assert not ships(accepted_because="  ")
