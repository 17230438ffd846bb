"""Hair in photographs of skin: found, filled in, shown, and never mixed up with the originals."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from edgekd.cli import main
from edgekd.data._hair import HairRemoved, hair_mask, hairless, without_hair
from edgekd.data.base import Image
from edgekd.data.prepare import prepare_images
from edgekd.data.prepared import open_prepared
from edgekd.data.protocol import key_of, splits_of
from edgekd.data.read import open_source, open_store
from edgekd.errors import DataError, MissingOnHost
from edgekd.export.materials import Materials
from edgekd.image import resize
from edgekd.recipe_data import DataSpec
from edgekd.recipe_load import load
from edgekd.rundir import RunDir
from edgekd.train.setup import prepare
from tests import tiny
from tests.data.copies import listing
from tests.data.plain import Plain

WITHOUT = "data.remove_hair=true"


def skin(hairs: int, seed: int = 0, width: int = 80, height: int = 60) -> Image:
    """A bright, slightly uneven picture with dark lines."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    shade = 190 + 15 * np.sin(rows / 20 + seed) + 10 * np.cos(columns / 25)
    picture = Pillow.fromarray(np.stack([shade, shade - 30, shade - 50], 2).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(hairs):
        ends = [(int(x), int(y)) for x, y in random.integers(0, (width, height), (2, 2))]
        draw.line(ends, fill=(40, 30, 25), width=2)
    return np.asarray(picture)


def slow_mask(image: Image, side: int) -> np.ndarray[Any, Any]:
    """The same by loops: grey, closing by a cross minus grey, binomial blur, threshold."""
    weights = np.array([4899, 9617, 1868])  # 0.299, 0.587, 0.114 in parts of 2**14
    grey = (image.astype(np.int64) @ weights + 2**13) // 2**14
    height, width = grey.shape
    reach = range(-(side // 2), side // 2 + 1)
    cross = [(0, step) for step in reach] + [(step, 0) for step in reach]

    def around(values: np.ndarray[Any, Any], best: Any) -> np.ndarray[Any, Any]:
        found = np.empty_like(values)
        for y in range(height):
            for x in range(width):
                places = [(y + dy, x + dx) for dy, dx in cross]
                found[y, x] = best(
                    values[p] for p in places if 0 <= p[0] < height and 0 <= p[1] < width
                )
        return found

    lines = around(around(grey, max), min) - grey
    padded = np.pad(lines, 1, mode="reflect")
    mask = np.zeros((height, width), dtype=np.uint8)
    for y in range(height):
        for x in range(width):
            window = padded[y : y + 3, x : x + 3] * np.outer([1, 2, 1], [1, 2, 1])
            mask[y, x] = (window.sum() + 8) // 16 > 10
    return mask


@pytest.mark.parametrize("seed", [0, 1])
def test_the_mask_is_that_of_the_filters_written_out(seed: int) -> None:
    image = skin(3, seed, 40, 30)
    noisy = np.random.default_rng(seed).integers(0, 256, (20, 26, 3), dtype=np.uint8)
    for one in (image, noisy):
        mask = hair_mask(one)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, slow_mask(one, 9))
    assert 0 < hair_mask(image).mean() < 0.5


def test_above_600_pixels_thicker_lines_are_hair() -> None:
    for width, thickness, found in ((600, 11, False), (601, 11, True), (601, 19, False)):
        image = np.full((40, width, 3), 200, dtype=np.uint8)
        image[:, 20 : 20 + thickness] = 30
        assert hair_mask(image)[20, 20 + thickness // 2] == found


def test_hair_goes_and_the_rest_stays() -> None:
    bare, hairy = skin(0), skin(6)
    after, share = without_hair(hairy)
    mask = hair_mask(hairy)
    assert share == pytest.approx(mask.mean())
    assert share > 0.02
    np.testing.assert_array_equal(after[mask == 0], hairy[mask == 0])
    lines = np.abs(hairy.astype(int) - bare).max(axis=2) > 60
    before = np.abs(hairy.astype(int) - bare)[lines].mean()
    assert np.abs(after.astype(int) - bare)[lines].mean() < 0.1 * before
    assert after.shape == hairy.shape
    assert after.dtype == np.uint8


def test_an_image_with_little_hair_is_left_as_it_is() -> None:
    for hairs in (0, 1):
        image = skin(hairs, width=400, height=300)
        after, share = without_hair(image)
        assert share <= 0.02
        assert after is image


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
    ],
)
def test_anything_but_rgb_is_refused(image: Any) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(H, W, 3\), got "):
        hair_mask(image)


def test_files_that_are_not_rgb_are_made_so_by_reading_them(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    for mode in ("L", "P", "RGBA"):
        Pillow.fromarray(skin(6)).convert(mode).save(tmp_path / "images" / "a" / f"{mode}.png")
    source = open_source(spec_of(tmp_path / "images"))
    for index in range(3):
        assert source[index].image.shape == (60, 80, 3)
        assert hairless(source).shares[index] > 0.02  # type: ignore[union-attr]


def test_without_opencv_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingOnHost, match="removing hair needs the package 'cv2'") as caught:
        hair_mask(skin(1))
    assert caught.value.hint == "pip install 'edgekd[hair]'"


def draw_folder(root: Path) -> Path:
    """Two classes of five pictures each, in which picture k has 2 k hairs."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            pixels = skin(2 * number, seed=number + 10 * (name == "b"))
            Pillow.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def spec_of(root: Path, **more: Any) -> DataSpec:
    own = {"input": {"size": 16}, "split": "3-1-1", "remove_hair": True, **more}
    return DataSpec(name="folder", root=str(root), **own)


def test_other_pixels_are_other_data(tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "images")
    specs = [spec_of(root, remove_hair=False), spec_of(root)]
    plain, source = map(open_source, specs)
    assert hairless(plain) is None
    assert isinstance(source, HairRemoved)
    keys = [key_of(one, splits_of(one, spec)) for one, spec in zip((plain, source), specs)]  # noqa: B905
    assert keys[0] != keys[1]
    np.testing.assert_array_equal(source[4].image, without_hair(plain[4].image)[0])
    assert (source.ids(), source.files()) == (plain.ids(), plain.files())
    assert "remove_hair" not in specs[0].model_dump()  # recipes of before keep their hashes
    assert "remove_hair" in specs[1].model_dump()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_copy_holds_the_images_without_hair_and_says_so(tmp_path: Path, workers: int) -> None:
    spec = spec_of(draw_folder(tmp_path / "images"), workers=workers)
    source = open_source(spec)
    copy, written = prepare_images(tmp_path / "copy", source, np.arange(10), spec)
    assert written
    assert copy.facts.changed == "hair removed"
    for index in range(10):
        np.testing.assert_array_equal(copy[index], resize(source[index].image, spec.input))
    assert open_prepared(copy.path, source, spec).facts == copy.facts
    assert not prepare_images(tmp_path / "copy", source, np.arange(10), spec)[1]
    rows = list(csv.DictReader((copy.path / "hair.csv").read_text().splitlines()))
    shares = {row["id"]: float(row["share"]) for row in rows}
    assert sorted(shares) == sorted(source.ids())
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert {row["removed"] for row in rows if float(row["share"]) <= 0.02} == {"no"}
    assert shares["a/0.png"] == 0 < shares["a/4.png"]


def test_copies_with_and_without_hair_are_never_taken_for_each_other(tmp_path: Path) -> None:
    root, out = draw_folder(tmp_path / "images"), tmp_path / "copy"
    plain, bare = spec_of(root, remove_hair=False), spec_of(root)
    for made, other, hint in ((plain, bare, "false"), (bare, plain, "true")):
        prepare_images(out / hint, open_source(made), np.arange(10), made)
        wanted = other.model_copy(update={"prepared": str(out / hint)})
        with pytest.raises(DataError, match=r"data\.prepared: .* is a copy of images ") as caught:
            open_store(open_source(other), wanted, [])
        assert f"data.remove_hair={hint}" in (caught.value.hint or "")
        before = (out / hint / "pixels.bin").read_bytes()
        with pytest.raises(DataError, match=r"a copy of images .* the recipe asks for images "):
            prepare_images(out / hint, open_source(other), np.arange(10), other)
        assert (out / hint / "pixels.bin").read_bytes() == before
    assert "changed" not in json.loads((out / "false" / "prepared.json").read_text())


def recipe_of(folder: Path) -> Path:
    tree = tiny.tree(folder, name="folder", params={}, root=str(draw_folder(folder / "images")))
    tree["data"].update(split="3-1-1", input={"size": 16})
    tree["task"] = {"name": "classification"}
    return tiny.write(folder, tree)


def test_the_command_writes_a_copy_a_table_and_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(recipe_of(tmp_path))
    assert main(["data", "prepare", path, "--remove-hair"]) == 0
    out, err = capsys.readouterr()
    copy = tmp_path / "prepared" / "folder-16-hair-removed"
    assert out == "prepared/folder-16-hair-removed\n"
    assert "to use it: data.prepared=prepared/folder-16-hair-removed data.remove_hair=true" in err
    assert "hair removed from 8 of 10 images: prepared/folder-16-hair-removed/hair.csv" in err
    assert listing(copy) == ["hair.csv", "index.npy", "pixels.bin", "prepared.json"]
    assert main(["data", "prepare", path, WITHOUT, "--preview", "2"]) == 0  # the recipe may say it
    err = capsys.readouterr().err
    assert "up to date" in err
    assert "4 of them before and after" in err
    with Pillow.open(copy / "hair.png") as sheet:
        assert sheet.width == 3 * 320 + 2 * 8
        assert 4 * 240 < sheet.height < 4 * 280
        pixels = np.asarray(sheet.convert("L"))[32:272]  # the first row of pictures
    before, mask, after = (pixels[:, left : left + 320] for left in (0, 328, 656))
    assert set(np.unique(mask)) > {0, 255}
    assert (before < 100).mean() > 0.05 > (after < 100).mean()
    assert main(["data", "prepare", path, "--remove-hair", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["written"], answer["changed"]) == (False, "hair removed")


def test_it_is_said_beside_every_figure(tmp_path: Path) -> None:
    path = recipe_of(tmp_path)
    recipe = load(path, overrides=[WITHOUT])
    (caveat,) = prepare(recipe).caveats
    assert "hair was removed" in caveat
    assert "the exported model does not do it" in caveat
    assert Materials(RunDir(tmp_path / "run"), recipe, print).caveats() == [caveat]
    assert prepare(load(path)).caveats == []


def test_a_sheet_needs_removed_hair_and_at_least_one_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(recipe_of(tmp_path))
    assert main(["data", "prepare", path, "--preview", "3"]) == 2
    assert "hint: --remove-hair" in capsys.readouterr().err
    assert main(["data", "prepare", path, "--remove-hair", "--preview", "0"]) == 2
    assert not (tmp_path / "prepared").exists()


def test_a_source_of_ones_own_is_still_asked_for_one_image_at_a_time(tmp_path: Path) -> None:
    busy: list[int] = []

    class Alone(Plain):
        def __getitem__(self, index: int) -> Any:
            assert not busy
            busy.append(index)
            sample = super().__getitem__(index)
            busy.clear()
            return sample

    source = HairRemoved(Alone([0, 1] * 20))
    spec = spec_of(tmp_path, workers=4)
    assert len(prepare_images(tmp_path / "copy", source, np.arange(40), spec)[0]) == 40
