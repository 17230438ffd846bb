"""A bundle is verified before anything in it is opened."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle import SCHEMA_VERSION, Gate, OperatingPoint, open_bundle, read_manifest
from edgekd.errors import BundleError, DataError, EdgekdError
from edgekd.rundir import replace_folder
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


OUTSIDE = [
    "/etc/passwd", "../outside", "a/../../outside", "a\\b", "..", ".", "", "./golden", "golden/",
    "golden//images.json", "golden/../model.fp32.onnx", "C:/model.onnx", "c:model.onnx", "a\0b",
    "//server/share/model.onnx",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused(bundle: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    edit(bundle, lambda tree: tree["files"].update({name: entry}))
    refused(bundle, "outside the bundle")


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_artifact_cannot_open_what_lies_outside(bundle: Path, name: str) -> None:
    edit(bundle, lambda tree: tree["artifacts"]["onnx-fp32"].update(file=name))
    refused(bundle, "is used by onnx-fp32 but not listed")


@pytest.mark.parametrize("name", ["bench/device.jsonl", "manifest.json", "model.sig"])
def test_what_changes_after_the_bundle_was_closed_cannot_be_listed(bundle: Path, name: str) -> None:
    (bundle / "bench").mkdir()
    (bundle / "bench" / "device.jsonl").write_text("")
    edit(bundle, lambda tree: tree["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}))
    refused(bundle, f"lists {name}, which cannot be listed")


@pytest.mark.parametrize("name", ["Bench/x.jsonl", "MODEL.SIG", "Manifest.json", "bench2"])
def test_names_are_told_apart_by_case(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("x")
    refused(bundle, f"{name} is not listed")


def test_two_names_that_are_one_file_on_some_systems(bundle: Path) -> None:
    shutil.copy(bundle / "model.fp32.onnx", bundle / "Model.FP32.onnx")
    edit(bundle, lambda tree: tree["files"].update(
        {"Model.FP32.onnx": tree["files"]["model.fp32.onnx"]}))  # fmt: skip
    refused(bundle, "one file on some systems")


@pytest.mark.parametrize("name", ["model.fp32.onnx", "extra", "golden/more", "bench/device.jsonl"])
@pytest.mark.parametrize("leads", ["out", "in", "nowhere", "to a folder"])
def test_links_are_refused(bundle: Path, tmp_path: Path, name: str, leads: str) -> None:
    """Also one inside, which could be led elsewhere, and one that `bench` would write through."""
    outside = tmp_path / "outside"
    shutil.copy(bundle / "model.fp32.onnx", outside)
    link = bundle / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to({"out": outside, "in": bundle / "model.int8.onnx", "nowhere": tmp_path / "none",
                     "to a folder": tmp_path}[leads])  # fmt: skip
    refused(bundle, f"{name} is a link")


def test_a_linked_bench_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (bundle / "bench").symlink_to(tmp_path / "elsewhere")
    refused(bundle, "bench is a link")


def test_a_bundle_may_itself_be_reached_through_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    open_bundle(tmp_path / "link")


def test_a_pipe_is_refused_and_not_read(bundle: Path) -> None:
    os.mkfifo(bundle / "golden" / "pipe")
    refused(bundle, "golden/pipe is neither a file nor a folder")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"schema_version": true}',
                                  '{"schema_version": "1"}', '{"schema_version": 0}', "\udcff"]
                         )  # fmt: skip
def test_what_is_no_manifest(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(bundle, "is damaged|is no schema version")


def test_a_manifest_of_a_newer_schema_says_what_to_do(bundle: Path) -> None:
    edit(bundle, lambda tree: tree.update(schema_version=9, unheard_of={}))
    with pytest.raises(BundleError, match="schema version 9 is newer than this edgekd") as caught:
        open_bundle(bundle)
    assert caught.value.hint == "pip install -U edgekd"


def test_a_manifest_of_schema_1_is_read(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "manifest.v1.json", tmp_path / "manifest.json")
    manifest = read_manifest(tmp_path)
    assert manifest.schema_version == SCHEMA_VERSION == 2
    assert manifest.thresholds == {"severe": OperatingPoint(threshold=0.25)}
    assert manifest.artifacts["onnx-fp32"].gate is not None
    assert manifest.artifacts["onnx-fp32"].gate.may_ship


def test_a_whole_bundle_of_schema_1_is_opened(bundle: Path) -> None:
    edit(bundle, lambda tree: tree.update(schema_version=1))
    assert open_bundle(bundle).schema_version == 2


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"typo": {"threshold": 0.5}}, "thresholds: .*there is no class 'typo'"),
        ({"mild": {"threshold": 1.0000000000000002}}, "thresholds.mild.threshold: .* 1"),
        ({"mild": {"threshold": -0.1}}, "thresholds.mild.threshold: .* 0"),
        ({"mild": {"threshold": float("nan")}}, "thresholds.mild.threshold: "),
    ],
)
def test_an_operating_point_that_cannot_be_is_refused(
    bundle: Path, points: dict[str, Any], words: str
) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "thresholds": points}))
    with pytest.raises(BundleError, match=words) as caught:
        read_manifest(bundle)
    assert caught.value.hint == "copy the whole bundle again"


def test_a_mount_point_is_refused_before_anything_is_built(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == bundle.resolve())
    opened = replace_folder(bundle)
    with pytest.raises(EdgekdError, match="is a mount point") as caught, opened:
        pytest.fail("something was built")
    assert "mount its parent folder" in (caught.value.hint or "")
    with replace_folder(bundle / "golden"):
        pass


def test_a_golden_picture_of_absurd_size_is_refused_before_it_is_decoded(bundle: Path) -> None:
    """Its hash is right: a bundle may have been made to harm."""
    from edgekd.bundle import close_bundle
    from edgekd.verify import verify
    from tests.test_image import header_only

    (bundle / "golden" / "wide.png").write_bytes(header_only(50_000, 50_000))
    close_bundle(bundle, read_manifest(bundle))
    with pytest.raises(DataError, match="the limit is 178 million"):
        verify(bundle)


def test_an_inconclusive_gate_ships_only_with_a_reason() -> None:
    def ships(**more: Any) -> bool:
        return Gate(verdict="inconclusive", checks=[], images=1, groups=1, **more).may_ship

    assert ships(accepted_because="trial, protocol 7")
    assert not ships()
    assert not ships(accepted_because="  ")
