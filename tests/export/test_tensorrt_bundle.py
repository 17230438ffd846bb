"""An engine in a bundle: built on the device, bound to it, built again on the next one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgekd.bench.run import bench, recommend
from edgekd.bundle import close_bundle, open_bundle, read_manifest
from edgekd.errors import BundleError, GateFailed, MissingOnHost
from edgekd.predict import predict
from edgekd.recipe_load import load, to_yaml
from edgekd.rundir import write_text
from edgekd.runtimes.session import open_session, resolve
from edgekd.verify import verify
from tests.export.runs import REASON, quiet_export
from tests.runtimes.trt import api
from tests.runtimes.trt.here import machine

NAMES = ("tensorrt-fp32", "tensorrt-int8")
QUICK = {"warmup": 1, "warmup_s": 0, "repeats": 10, "seconds": 0, "memory": False}


@pytest.fixture
def carried(run, tmp_path):
    """The bundle alone, as it comes to a device."""
    return Path(shutil.copytree(run.bundle, tmp_path / "device" / "bundle"))


@pytest.fixture(scope="module", params=api.VERSIONS)
def once(request, exported, tmp_path_factory):
    """A bundle after a build on orin-1, and the version it was built with."""
    folder = tmp_path_factory.mktemp(request.param)
    bundle = Path(shutil.copytree(exported[0] / "bundle", folder / "bundle"))
    with machine(request.param, folder):
        manifest, said = quiet_export(bundle, make=NAMES, accept_inconclusive=REASON)
    assert "student: making tensorrt-int8" in said
    assert set(NAMES) <= set(manifest.artifacts)
    return bundle, request.param


@pytest.fixture
def built(once, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(once[0], tmp_path / "device" / "bundle")), once[1]


def files_of(bundle):
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.glob("tensorrt/*/*"))


def test_it_is_listed_judged_and_found_again(built, tmp_path):
    bundle, version = built
    manifest = open_bundle(bundle)
    artifact = manifest.artifacts["tensorrt-int8"]
    assert artifact.files == [f"tensorrt/orin-1/model.int8.{end}" for end in ("plan", "json")]
    assert set(artifact.files) <= set(manifest.files)
    assert artifact.made_from == "onnx-int8"
    assert artifact.gate is not None
    assert manifest.artifacts["tensorrt-fp32"].gate.verdict == "passed"
    before = (bundle / "manifest.json").read_bytes()
    with machine(version, tmp_path):
        _, said = quiet_export(bundle, make=NAMES, accept_inconclusive=REASON)
        rows = {row.get("artifact"): row for row in verify(bundle)}
    assert said == [f"{bundle}: up to date"]
    assert (bundle / "manifest.json").read_bytes() == before
    assert rows["tensorrt-int8"]["result"] == "ok"
    assert rows["tensorrt-int8"]["ran_in"] == "i8"


def test_it_is_measured_and_can_be_recommended(built, tmp_path):
    bundle, version = built
    with machine(version, tmp_path):
        rows = bench(bundle, artifacts=NAMES, **QUICK)
    assert [(row.artifact, row.device, row.precision_ran) for row in rows] == [
        ("tensorrt-fp32", "CUDA:0", "f32"), ("tensorrt-int8", "CUDA:0", "i8"),
    ]  # fmt: skip
    assert all("CUDA graph on; host memory page-locked" in row.notes[0] for row in rows)
    assert recommend(open_bundle(bundle), rows).artifact in NAMES
    elsewhere = [row.model_copy(update={"device": "CPU"}) for row in rows]
    assert recommend(open_bundle(bundle), elsewhere).artifact is None


class TestOnAnotherHost:
    @pytest.fixture
    def elsewhere(self, built, tmp_path):
        bundle, version = built
        with machine(version, tmp_path, host="orin-2") as world:
            yield bundle, world

    def test_it_is_passed_over_with_the_reason(self, elsewhere, capsys):
        bundle, _ = elsewhere
        rows = {row.get("artifact"): row for row in verify(bundle)}
        assert rows["tensorrt-int8"]["result"] == "skipped"
        assert "was built on orin-1 (Orin, TensorRT" in rows["tensorrt-int8"]["reason"]
        measured = bench(bundle, **QUICK)
        assert measured
        assert not {row.artifact for row in measured} & set(NAMES)
        said = " ".join(capsys.readouterr().err.split())
        assert "tensorrt-int8: not measured: model.int8.plan was built on orin-1" in said
        assert "--make tensorrt-int8" in said
        with open_session(bundle) as session:
            assert session.runtime_name != "tensorrt"

    def test_named_it_is_an_error_that_says_what_to_type(self, elsewhere):
        bundle, world = elsewhere
        for use in (
            lambda: bench(bundle, artifacts=["tensorrt-int8"], **QUICK),
            lambda: list(predict(bundle, [bundle / "golden"], artifact="tensorrt-int8")),
            lambda: open_session(bundle, runtime="tensorrt").__enter__(),
        ):
            with pytest.raises(
                MissingOnHost, match=r"built on orin-1 .*, this is orin-2"
            ) as caught:
                use()
            assert f"edgekd export {bundle} --make tensorrt-" in caught.value.hint
        assert "Runtime" not in world.calls

    def test_it_is_built_again_by_the_same_command(self, elsewhere):
        bundle, _ = elsewhere
        _, said = quiet_export(bundle, make=["tensorrt-int8"], accept_inconclusive=REASON)
        assert any(
            line.startswith("tensorrt-int8: model.int8.plan was built on orin-1")
            and line.endswith("building it again")
            for line in said
        )
        manifest = open_bundle(bundle)
        assert manifest.artifacts["tensorrt-int8"].file == "tensorrt/orin-2/model.int8.plan"
        assert files_of(bundle) == [  # the fp32 one is still that of orin-1, and still says so
            "tensorrt/orin-1/model.fp32.json", "tensorrt/orin-1/model.fp32.plan",
            "tensorrt/orin-2/model.int8.json", "tensorrt/orin-2/model.int8.plan",
        ]  # fmt: skip
        with open_session(resolve(bundle), artifact="tensorrt-int8") as session:
            assert session.inspect().precision == "i8"
        quiet_export(bundle, make=["tensorrt-fp32"], accept_inconclusive=REASON)
        assert not (bundle / "tensorrt/orin-1").exists()

    def test_a_build_that_fails_leaves_the_bundle_as_it_was(self, elsewhere):
        bundle, world = elsewhere
        before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
        world.builds_in = "f32"
        with pytest.raises(BundleError, match="asked for in int8"):
            quiet_export(bundle, make=["tensorrt-int8"])
        assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before

    def test_an_old_acceptance_does_not_carry_over(self, elsewhere):
        bundle, _ = elsewhere
        assert open_bundle(bundle).artifacts["tensorrt-int8"].gate.verdict == "inconclusive"
        with pytest.raises(GateFailed, match="tensorrt-int8: inconclusive"):
            quiet_export(bundle, make=["tensorrt-int8"])


def test_a_new_tensorrt_on_the_same_host_builds_again(carried, tmp_path):
    with machine("cu12", tmp_path):
        quiet_export(carried, make=["tensorrt-fp32"], accept_inconclusive=REASON)
    with machine("cu13", tmp_path):
        _, said = quiet_export(carried, make=["tensorrt-fp32"], accept_inconclusive=REASON)
    assert any("TensorRT 10.3.0), this is orin-1 (Orin, TensorRT 11." in line for line in said)


def test_without_tensorrt_the_export_is_exit_4(carried, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingOnHost, match="tensorrt-int8 needs the package 'tensorrt'"):
        quiet_export(carried, make=["tensorrt-int8"])


def test_what_a_recipe_wants_of_a_device_is_left_to_it(carried, tmp_path, monkeypatch):
    """One recipe serves workstation and device."""
    rewrite_make(carried, [*read_manifest(carried).recipe["export"]["make"], "tensorrt-fp32"])
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    _, said = quiet_export(carried, accept_inconclusive=REASON)
    assert said[0] == (
        "tensorrt-fp32: left to the device: edgekd export BUNDLE --make tensorrt-fp32"
    )
    monkeypatch.undo()
    with machine("cu12", tmp_path):
        manifest, _ = quiet_export(carried, accept_inconclusive=REASON)
    assert "tensorrt-fp32" in manifest.artifacts


def rewrite_make(bundle, names):
    manifest = read_manifest(bundle)
    recipe = {**manifest.recipe, "export": {**manifest.recipe["export"], "make": names}}
    close_bundle(bundle, manifest.model_copy(update={"recipe": recipe}))


@pytest.mark.slow
def test_in_a_run_it_is_made_again_too(run, tmp_path):
    with machine("cu12", tmp_path):
        quiet_export(run.root, make=["tensorrt-fp32"], accept_inconclusive=REASON)
    with machine("cu12", tmp_path, host="orin-2"):
        manifest, _ = quiet_export(run.root, make=["tensorrt-fp32"], accept_inconclusive=REASON)
        assert manifest.artifacts["tensorrt-fp32"].file.startswith("tensorrt/orin-2/")
        _, said = quiet_export(run.root, make=["tensorrt-fp32"], accept_inconclusive=REASON)
    assert said[0].endswith("up to date")
    recipe = load(run.recipe)
    spec = recipe.export.model_copy(update={"make": ["onnx-fp32", "tensorrt-fp16"]})
    write_text(run.recipe, to_yaml(recipe.model_copy(update={"export": spec})))
    manifest, said = quiet_export(run.root, accept_inconclusive=REASON)
    assert any(line.startswith("tensorrt-fp16: left to the device") for line in said)
    assert "onnx-fp32" in manifest.artifacts
