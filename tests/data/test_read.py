"""From a recipe's `data:` section to a source, and from a source to resized images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data.base import Mask
from edgekd.data.folder import Folder
from edgekd.data.read import ImageStore, labels_of, open_source, read_squares, read_truth
from edgekd.data.synthetic import Synthetic
from edgekd.errors import DataError, RecipeError
from edgekd.image import center_crop, resize, to_square
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


class Masked(Plain):
    """Images (H, W), black and white as their masks, which are `times` as large."""

    has_masks = True

    def __init__(self, shape: tuple[int, int], times: int = 1, count: int = 3) -> None:
        # blocks of 4 pixels, and which are white is drawn from the number of the image
        grid = [
            np.random.default_rng(n).integers(0, 2, (shape[0] // 4 + 1, shape[1] // 4 + 1))
            for n in range(count)
        ]
        self.masks = [
            np.kron(cells, np.ones((4 * times, 4 * times)))[: shape[0] * times, : shape[1] * times]
            for cells in grid
        ]
        images = [
            np.repeat(255 * mask[::times, ::times, None], 3, 2).astype(np.uint8)
            for mask in self.masks
        ]
        super().__init__([0] * count, images=images)
        self.read = 0

    def mask(self, index: int) -> Mask:
        self.read += 1
        return self.masks[index].astype(np.uint8)


STRETCH = InputSpec(size=32)
CROPPED = [InputSpec(size=31, resize=40, fit="shorter"), InputSpec(size=24, fit="shorter"),
           InputSpec(size=24, resize=33)]  # fmt: skip


@pytest.mark.parametrize("spec", [STRETCH, *CROPPED])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("shape", [(64, 64), (67, 101), (101, 67), (45, 60)])
def test_a_mask_goes_where_its_image_goes(
    shape: tuple[int, int], times: int, spec: InputSpec
) -> None:
    source = Masked(shape, times)
    store = ImageStore(source, spec)
    truth, squares = (
        read_truth(source, [2, 0], spec, masks=True),
        read_squares(source, [2, 0], spec),
    )
    assert truth.shape == (2, spec.size, spec.size)
    assert truth.dtype == np.int8
    for place, index in enumerate((2, 0)):
        assert store.mask(index).shape == store[index].shape[:2]
        np.testing.assert_array_equal(truth[place], center_crop(store.mask(index), spec.size))
        clear = np.abs(squares[place, ..., 0].astype(int) - 128) > 100  # not on a border
        assert clear.mean() > 0.25
        agree = (squares[place, ..., 0] > 128) == (truth[place] > 0)
        assert agree[clear].mean() > 0.98


def test_a_mask_larger_than_its_image_lands_on_the_same_pixels() -> None:
    """A reduced image has rounded sides: 67 x 100 of 400 x 600. At the size of the input those of
    the mask round to others, and the crop would begin elsewhere."""
    spec = InputSpec(size=224, fit="shorter")
    source = Masked((67, 100))
    source.masks = [np.kron(np.eye(2), np.ones((200, 300)))] * 3
    assert ImageStore(source, spec).mask(0).shape == (224, 334)
    truth = read_truth(source, [0], spec, masks=True)[0]
    np.testing.assert_array_equal(truth, center_crop(ImageStore(source, spec).mask(0), 224))
    assert truth[0].tolist() == [1] * 112 + [0] * 112


def test_unknown_pixels_are_minus_one() -> None:
    mask = np.array([[0, 1, 255, 126]], dtype=np.uint8)
    assert labels_of(mask).tolist() == [[0, 1, -1, 126]]
    source = Masked((16, 16), count=1)
    source.masks = [np.full((16, 16), 255)]
    assert (read_truth(source, [0], InputSpec(size=8), masks=True) == -1).all()


def test_without_masks_the_truth_is_the_targets() -> None:
    assert read_truth(Plain([3, 1, 2]), [2, 0], InputSpec(size=8), masks=False).tolist() == [2, 3]


def test_the_store_reads_a_mask_once_and_fills_with_masks() -> None:
    source = Masked((16, 16))
    store = ImageStore(source, InputSpec(size=8))
    store.fill()
    assert source.read == 3  # worker processes share what is here, and nothing that they read
    first = store.mask(1)
    assert source.read == 3
    assert not first.flags.writeable
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy.mask(1), first)
    assert copy.source.read == 4


def test_masks_count_towards_the_budget() -> None:
    source = Masked((16, 16), count=6)
    store = ImageStore(source, InputSpec(size=8), budget=2 * 8 * 8 * 4)
    store.fill()
    filled = source.read
    assert filled <= 3
    for index in range(6):
        assert store.mask(index).shape == (8, 8)
    assert source.read == filled + 4
