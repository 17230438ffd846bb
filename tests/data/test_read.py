"""From a recipe's `data:` section to a source, and from a source to resized images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.folder import Folder
from edgekd.data.read import ImageStore, open_source, read_squares
from edgekd.data.synthetic import Synthetic
from edgekd.errors import DataError, RecipeError
from edgekd.image import resize, to_square
from edgekd.recipe_data import DataSpec, InputSpec
from tests.data.plain import Plain


def test_a_source_without_files_needs_no_root() -> None:
    source = open_source(DataSpec(name="synthetic", params={"images": 30, "size": 16}))
    assert isinstance(source, Synthetic)
    assert len(source) == 30
    with pytest.raises(RecipeError, match="'synthetic' reads no files, got 'somewhere'"):
        open_source(DataSpec(name="synthetic", root="somewhere"))


def test_a_source_with_files_gets_the_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "1.png")
    source = open_source(DataSpec(name="folder", root=str(tmp_path), params={"classes": ["a"]}))
    assert isinstance(source, Folder)
    assert source.root == tmp_path


def test_a_missing_root_says_what_to_type() -> None:
    for root in (None, "no/such/folder"):
        with pytest.raises(DataError, match=r"data\.root") as caught:
            open_source(DataSpec(name="ham10000", root=root))
        assert caught.value.hint == "data.root=FOLDER"


def test_unknown_names_and_parameters_get_a_suggestion() -> None:
    with pytest.raises(RecipeError, match="no 'ham1000'") as caught:
        open_source(DataSpec(name="ham1000", root="."))
    assert caught.value.hint == "did you mean 'ham10000'?"
    with pytest.raises(RecipeError, match=r"data\.params\.image:") as caught:
        open_source(DataSpec(name="synthetic", params={"image": 30}))
    assert caught.value.hint == "did you mean 'images'?"
    with pytest.raises(RecipeError, match=r"data\.params\.images: .* got 'many'"):
        open_source(DataSpec(name="synthetic", params={"images": "many"}))
    with pytest.raises(RecipeError, match=r"data\.params\.root: write it as data\.root"):
        open_source(DataSpec(name="folder", params={"root": "x"}))


def test_a_file_in_a_plugin_folder_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from edgekd.data.base import DataSource\n"
        "from tests.data.plain import Plain as _Plain\n"
        "class Mine(_Plain):\n"
        "    def __init__(self, *, count: int = 3) -> None:\n"
        "        super().__init__([0] * count)\n"
    )
    source = open_source(DataSpec(name="mine", params={"count": 5}), [tmp_path])
    assert len(source) == 5


class Counting(Plain):
    """Counts how often an image is decoded."""

    decoded = 0

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
        self.decoded += 1
        return super().__getitem__(index)


def test_the_store_resizes_without_cropping_and_decodes_once() -> None:
    source, spec = Counting([0] * 6), InputSpec(size=8, resize=10, fit="shorter")
    store = ImageStore(source, spec)
    for _ in range(3):
        np.testing.assert_array_equal(store[4], resize(Plain([0] * 6)[4].image, spec))
    assert store[4].shape == (10, 13, 3)
    assert source.decoded == 1


def test_filling_the_store_decodes_only_what_was_asked_for() -> None:
    source, ticks = Counting([0] * 6), []
    store = ImageStore(source, InputSpec(size=8), indices=np.array([1, 4]))
    store.fill(progress=lambda: ticks.append(1))
    assert (source.decoded, len(ticks), len(store)) == (2, 2, 2)
    store.fill()
    assert source.decoded == 2


def test_beyond_the_budget_images_are_decoded_each_time() -> None:
    source = Counting([0] * 6)
    store = ImageStore(source, InputSpec(size=8), budget=2 * 8 * 8 * 3)
    store.fill()
    filled = source.decoded
    for _ in range(2):
        for index in range(6):
            assert store[index].shape == (8, 8, 3)
    assert filled <= 3
    assert source.decoded == filled + 2 * 4


def test_a_store_travels_to_workers_without_its_images() -> None:
    store = ImageStore(Plain([0] * 6), InputSpec(size=64))
    store.fill()
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 64 * 64 * 3
    np.testing.assert_array_equal(copy[3], store[3])


def test_squares_are_what_the_device_sees() -> None:
    source, spec, ticks = Plain([0] * 6), InputSpec(size=8, resize=10), []
    squares = read_squares(source, [5, 0], spec, progress=lambda: ticks.append(1))
    assert squares.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(squares[0], to_square(source[5].image, spec))
    assert len(ticks) == 2


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"nothing")
    source = Folder(root=tmp_path)
    for read in (
        lambda: ImageStore(source, InputSpec(size=8))[0],
        lambda: read_squares(source, [0], InputSpec(size=8)),
    ):
        with pytest.raises(DataError, match=r"1\.png: cannot be read as an image"):
            read()
