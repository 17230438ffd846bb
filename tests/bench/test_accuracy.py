"""Scoring through the runtime, on a folder or on the bundle's own data set."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from edgekd.bench.accuracy import find_images, score
from edgekd.bench.phases import measure_dicom
from edgekd.bench.run import bench
from edgekd.bundle import close_bundle, read_manifest
from edgekd.data.origin import digests
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import BundleError, DataError
from edgekd.recipe_data import DataSpec
from edgekd.runtimes.session import open_session
from tests.bench.test_run import QUICK
from tests.dicom_files import encoded
from tests.tiny_bundle import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def write_pictures(root: Path, classes: list[str], each: int = 4) -> Path:
    random = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def recipe(bundle: Path, **data: object) -> None:
    """Change the `data:` of the recipe in a bundle."""
    manifest = read_manifest(bundle)
    tree = {**manifest.recipe, "data": {**manifest.recipe["data"], **data}}
    close_bundle(bundle, manifest.model_copy(update={"recipe": tree}))


def test_the_test_part_of_the_bundles_own_data(bundle: Path) -> None:
    with open_session(bundle) as session:
        assert session.manifest is not None
        images = find_images(None, session.manifest)
        scores, predictions = score(session, images, batch=4)
    parts = list(images.source.parts() or ())
    assert 0 < len(images) == len(predictions.ids) == parts.count("test")
    assert {"accuracy", "qwk"} <= set(scores)
    assert scores["accuracy"].images == len(images)


def test_a_folder_with_the_classes_is_taken_whole_in_the_bundles_order(
    bundle: Path, tmp_path: Path
) -> None:
    """`mild` comes before `none` in the alphabet, but is class 1 of the bundle."""
    root = write_pictures(tmp_path / "pictures", ["mild", "none", "severe"])
    images = find_images(root, read_manifest(bundle))
    names = [images.source.ids()[index].split("/")[0] for index in images.indices]
    expected = [["none", "mild", "moderate", "severe"].index(name) for name in names]
    assert images.targets.tolist() == expected
    assert sorted(set(expected)) == [0, 1, 3]


class TestABundleSplitFromClassFolders:
    """Its own tree has the very shape of a folder of new images."""

    CLASSES: ClassVar[list[str]] = ["none", "mild", "moderate", "severe"]

    @pytest.fixture
    def tree(self, bundle: Path, tmp_path: Path) -> Path:
        """Ten pictures of each class, of which the bundle was split 6-2-2."""
        root = write_pictures(tmp_path / "tree", self.CLASSES, each=10)
        manifest = read_manifest(bundle)
        data = {"name": "folder", "root": str(root), "params": {"classes": self.CLASSES},
                "split": "6-2-2"}  # fmt: skip
        source = open_source(DataSpec.model_validate(data))
        split = make_split(source, "6-2-2", seed=0)
        self.test_ids = [source.ids()[index] for index in split.test]
        changes = {"recipe": {"data": data}, "provenance": digests(source, split)}
        close_bundle(bundle, manifest.model_copy(update=changes))
        return root

    def test_of_its_own_tree_only_the_test_part_is_scored(self, bundle: Path, tree: Path) -> None:
        images = find_images(tree, read_manifest(bundle))
        assert [images.source.ids()[index] for index in images.indices] == self.test_ids

    def test_a_copy_of_the_tree_with_new_times_is_still_its_own(
        self, bundle: Path, tree: Path, tmp_path: Path
    ) -> None:
        away = tmp_path / "away"
        shutil.copytree(tree, away, copy_function=shutil.copyfile)
        shutil.rmtree(tree)
        images = find_images(away, read_manifest(bundle))
        assert [images.source.ids()[index] for index in images.indices] == self.test_ids

    def test_another_tree_is_taken_whole(self, bundle: Path, tree: Path, tmp_path: Path) -> None:
        other = write_pictures(tmp_path / "other", self.CLASSES, each=3)
        assert len(find_images(other, read_manifest(bundle))) == 12

    def test_one_image_more_at_the_recipes_root_is_refused(self, bundle: Path, tree: Path) -> None:
        shutil.copyfile(tree / "none" / "0.png", tree / "none" / "00.png")
        for data in (tree, None):
            with pytest.raises(DataError, match="not the data the bundle was split from") as caught:
                find_images(data, read_manifest(bundle))
            assert "a folder per class of new images" in (caught.value.hint or "")

    def test_a_picture_with_another_label_is_refused(self, bundle: Path, tree: Path) -> None:
        (tree / "none" / "0.png").rename(tree / "mild" / "00.png")
        with pytest.raises(DataError, match="not the data the bundle was split from"):
            find_images(None, read_manifest(bundle))


def test_a_split_that_deals_other_images_is_refused(bundle: Path) -> None:
    recipe(bundle, params={"images": 124, "size": 32})
    with pytest.raises(DataError, match="not the data the bundle was split from"):
        find_images(None, read_manifest(bundle))


def test_a_bundle_that_does_not_record_its_images_is_not_trusted_to_find_them(
    bundle: Path,
) -> None:
    manifest = read_manifest(bundle).model_copy(update={"provenance": {}})
    with pytest.raises(DataError, match="does not record which images"):
        find_images(None, manifest)


def test_scores_come_with_the_measurement(bundle: Path, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pictures", ["none", "mild", "moderate", "severe"])
    rows = bench(bundle, artifacts=["onnx-fp32"], data=root, batches=(1, 8), **QUICK)
    assert [row.scores is not None for row in rows] == [True, True]
    assert rows[0].scores is not None
    assert rows[0].scores["accuracy"].images == 16


def test_the_batch_does_not_change_the_scores(bundle: Path) -> None:
    found = []
    for batch in (1, 16):
        with open_session(bundle, batch=batch) as session:
            assert session.manifest is not None
            found.append(score(session, find_images(None, session.manifest), batch)[0])
    assert found[0]["nll"].value == pytest.approx(found[1]["nll"].value, rel=1e-5)


def test_images_are_decoded_once_for_all_artifacts(bundle: Path, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pictures", ["none", "severe"])
    images = find_images(root, read_manifest(bundle))
    first = list(images.chunks())
    for path in root.rglob("*.png"):
        path.unlink()
    again = list(images.chunks())
    assert len(first) == 1
    assert np.array_equal(first[0], again[0])


def test_a_folder_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find_images(tmp_path / "none", read_manifest(bundle))


def test_a_bundle_never_names_code_to_run(bundle: Path) -> None:
    recipe(bundle, name="os:path")
    with pytest.raises(BundleError, match="not one of edgekd's own") as caught:
        find_images(None, read_manifest(bundle))
    assert caught.value.hint is not None
    assert "--data FOLDER" in caught.value.hint


def test_a_bundle_without_a_recipe_asks_for_a_folder(bundle: Path) -> None:
    manifest = read_manifest(bundle).model_copy(update={"recipe": {}})
    with pytest.raises(DataError, match="names no data set"):
        find_images(None, manifest)


def test_data_of_other_classes_is_refused(bundle: Path) -> None:
    manifest = read_manifest(bundle).model_copy(update={"classes": ["a", "b", "c", "d"]})
    with pytest.raises(DataError, match="the data has the classes none, mild"):
        find_images(None, manifest)


def test_the_time_to_open_dicom_files_is_measured_on_those_of_the_data(
    bundle: Path, tmp_path: Path
) -> None:
    classes = read_manifest(bundle).classes
    root = write_pictures(tmp_path / "pictures", classes)
    (row,) = bench(bundle, artifacts=["onnx-fp32"], data=root, **QUICK)
    assert "decode_dicom" not in row.phases_ms
    random = np.random.default_rng(1)
    for number in range(30):
        pixels = random.integers(0, 4096, (20, 20)).astype(np.uint16)
        (root / classes[number % 2] / f"IM{number}").write_bytes(encoded(pixels, BitsStored=12))
    (row,) = bench(bundle, artifacts=["onnx-fp32"], data=root, **QUICK)
    assert row.phases_ms["decode_dicom"].min > 0
    assert row.scores is not None
    assert row.scores["accuracy"].images == 4 * len(classes) + 30
    images = find_images(root, read_manifest(bundle))
    assert len(images.dicom_files(100)) == 30
    assert 0 < len(images.dicom_files(10)) <= 10


def test_each_dicom_file_is_opened_once_and_the_first_before_that(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(encoded(np.zeros((4, 4), np.uint8)))
    ticks = iter(range(0, 80_000_000, 10_000_000))  # 10 ms between any two
    found = measure_dicom(paths, lambda: next(ticks))["decode_dicom"]
    assert (found.min, found.max, next(ticks, None)) == (10.0, 10.0, None)
    assert measure_dicom([]) == {}
