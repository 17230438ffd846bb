"""The built-in data set of several labels: its long tail, what comes together, what is drawn."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest

from edgekd.data import synthetic_labels
from edgekd.data._longtail import groups_of
from edgekd.data._signs import COLOURS, SIGNS
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.data.synthetic_labels import SyntheticLabels
from edgekd.errors import DataError, RecipeError
from edgekd.recipe import DataSpec


@pytest.fixture(scope="module")
def eyes() -> SyntheticLabels:
    return SyntheticLabels(
        size=32
    )  # 8,000 images, of which only those that are asked for are drawn


def grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.asarray(np.asarray(image, dtype=np.float64).mean(axis=2))


def test_the_same_arguments_give_the_same_data() -> None:
    first, second = SyntheticLabels(images=30, size=24), SyntheticLabels(images=30, size=24)
    np.testing.assert_array_equal(first.labels(), second.labels())
    assert first.fingerprint() == second.fingerprint()
    for index in (7, 3):  # in any order
        np.testing.assert_array_equal(first[index].image, second[index].image)
    again = first[3].image
    np.testing.assert_array_equal(again, second[3].image)


def test_pictures_are_those_of_the_first_release() -> None:
    """Runs that others keep name this hash: raise VERSION with it."""
    source = SyntheticLabels(images=20, size=16)
    assert source.fingerprint() == (
        "8cf2abd0b60419562d265eb916f4b1c3dd00bd99d83ed2d6debe95bf4ad256e5"
    )
    # of one machine: the last bit of a sine may be another elsewhere, and round a pixel otherwise
    mean = float(np.mean([source[index].image for index in range(20)]))
    assert mean == pytest.approx(62.328, abs=0.01)


@pytest.mark.parametrize(
    "other",
    [{"seed": 6}, {"size": 32}, {"noise": 0.1}, {"difficulty": 0.2}, {"images": 202},
     {"imbalance": 50}, {"co_occurrence": 0.1}, {"classes": 13}],
)  # fmt: skip
def test_every_argument_is_in_the_fingerprint(other: dict[str, float]) -> None:
    plain: dict[str, float] = {"images": 200, "size": 24, "seed": 5}
    changed = SyntheticLabels(**{**plain, **other})  # type: ignore[arg-type]
    assert changed.fingerprint() != SyntheticLabels(**plain).fingerprint()  # type: ignore[arg-type]


def test_a_sample_agrees_with_the_columns(eyes: SyntheticLabels) -> None:
    sample = eyes[7]
    assert sample.image.shape == (32, 32, 3)
    assert sample.image.dtype == np.uint8
    assert (sample.target, sample.id, sample.group) == (
        eyes.targets()[7], eyes.ids()[7], eyes.groups()[7]
    )  # fmt: skip
    assert len(set(eyes.ids())) == len(eyes) == 8000
    assert eyes.kinds() == (*eyes.classes, "none")
    with pytest.raises(IndexError):
        eyes[len(eyes)]


def test_the_counts_are_those_that_are_documented(eyes: SyntheticLabels) -> None:
    counts = eyes.labels().sum(axis=0)
    assert counts.tolist() == [3200, 2105, 1385, 911, 600, 395, 260, 171, 112, 74, 49, 32]
    larger = SyntheticLabels(images=40_000).labels().sum(axis=0)
    assert larger.tolist() == [16000, 10527, 6926, 4557, 2998, 1973, 1298, 854, 562, 370, 243, 160]
    assert counts[0] / counts[-1] == 100
    assert groups_of(counts) == ("head",) * 9 + ("medium",) * 3


@pytest.mark.parametrize(
    ("classes", "imbalance"), [(2, 100), (12, 10), (16, 200), (12, 1), (16, 10_000)]
)
def test_counts_fall_by_one_factor_from_class_to_class(classes: int, imbalance: float) -> None:
    source = SyntheticLabels(images=4000, classes=classes, imbalance=imbalance)
    counts = source.labels().sum(axis=0)
    for place, count in enumerate(counts):
        expected = 4000 * 0.4 / imbalance ** (place / (classes - 1))
        assert count == max(3, round(expected))


@pytest.mark.parametrize("images", [20, 21, 100])
def test_each_class_has_three_images_at_least(images: int) -> None:
    source = SyntheticLabels(images=images, classes=16, imbalance=10_000)
    assert source.labels().sum(axis=0).min() == 3
    assert len(source) == images


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_rare_class_comes_with_its_frequent_partner_as_often_as_asked(share: float) -> None:
    labels = SyntheticLabels(images=20_000, co_occurrence=share).labels()
    for column in range(4, 12):
        among = labels[labels[:, column] == 1][:, column % 4].mean()
        base = labels[:, column % 4].mean()
        assert among == pytest.approx(share + (1 - share) * base, abs=0.01)


def test_the_counts_do_not_depend_on_what_comes_together() -> None:
    counts = [SyntheticLabels(images=2000, co_occurrence=share).labels().sum(axis=0).tolist()
              for share in (0.0, 0.6, 1.0)]  # fmt: skip
    assert counts[0] == counts[1] == counts[2]


def test_images_show_none_one_or_several_signs(eyes: SyntheticLabels) -> None:
    shares = np.bincount(eyes.labels().sum(axis=1)) / len(eyes)
    assert shares[0] > 0.2
    assert shares[1] > 0.3
    assert shares[2:].sum() > 0.25
    assert (eyes.targets() == 12).sum() == (eyes.labels().sum(axis=1) == 0).sum()


def test_two_eyes_are_one_patient_and_have_more_in_common_than_others(
    eyes: SyntheticLabels,
) -> None:
    groups = eyes.groups()
    assert groups[0] == groups[1] != groups[2]
    assert len(set(groups)) == 4000
    labels = eyes.labels().astype(np.float64)
    for column in range(6):  # of the others there are too few to tell
        left, right = labels[0::2, column], labels[1::2, column]
        assert np.corrcoef(left, right)[0, 1] > 0.1
        assert abs(np.corrcoef(left, np.roll(right, 1))[0, 1]) < 0.06


def test_the_last_patient_may_have_one_eye() -> None:
    source = SyntheticLabels(images=21, size=16)
    assert source.groups()[-2:] == ["patient-00009", "patient-00010"]
    assert source[20].image.shape == (16, 16, 3)


def test_there_is_no_official_split_and_a_ratio_keeps_patients_together(
    eyes: SyntheticLabels,
) -> None:
    assert eyes.parts() is None
    with pytest.raises(DataError, match="no official split"):
        make_split(eyes, "official", seed=0)
    split = make_split(eyes, "7-1-2", seed=0, verify=False)
    homes = [set(part // 2) for _, part in split.items()]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 4000
    assert eyes.labels()[split.test].sum(axis=0).min() > 0


def test_neither_shape_nor_colour_nor_place_alone_tells_the_class() -> None:
    for part in (0, 1, 2):
        for columns in (12, 16):
            values = [sign[part] for sign in SIGNS[:columns]]
            assert all(values.count(value) > 1 for value in values)
    names = SyntheticLabels(images=20, classes=16).classes
    assert len(set(names)) == len(SIGNS) == 16
    assert names[0] == "red-spots"


def test_the_documented_classes_are_those_that_are_drawn() -> None:
    text = synthetic_labels.__doc__ or ""
    for number, (colour, shape, place) in enumerate(SIGNS):
        assert re.search(rf"\b{number} +{colour}-{shape} +{place}\b", text)


def test_each_place_has_frequent_and_rare_classes() -> None:
    for place in ("rim", "macula", "disc", "vessels"):
        numbers = [number for number, sign in enumerate(SIGNS[:12]) if sign[2] == place]
        assert [number // 4 for number in numbers] == [0, 1, 2]


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
@pytest.mark.parametrize("number", range(16))
def test_a_sign_is_a_visible_spot_in_its_colour(number: int, difficulty: float) -> None:
    """The same picture with and without one sign: it differs in one place, towards the colour."""
    source = SyntheticLabels(
        images=60, size=64, classes=16, imbalance=1, difficulty=difficulty, noise=0
    )
    index = int(np.flatnonzero(source.labels()[:, number])[0])
    source._labels[index] = 0
    without = np.asarray(source[index].image, dtype=np.float64)
    source._labels[index, number] = 1
    change = np.asarray(source[index].image, dtype=np.float64) - without
    size = np.abs(change).max(axis=2)
    where = np.argwhere(size > 8)
    assert 10 < len(where) < 0.12 * 64 * 64
    assert np.ptp(where, axis=0).max() < 32  # in one place
    strong = size > 0.6 * size.max()
    colour = 255 * np.array(COLOURS[SIGNS[number][0]])
    towards = (change[strong] * (colour - without[strong])).sum(axis=1)
    assert (towards > 0).all()


def test_signs_of_an_image_do_not_change_each_other_nor_the_eye(eyes: SyntheticLabels) -> None:
    source = SyntheticLabels(images=60, size=32, noise=0)
    index = int(np.argmax(source.labels().sum(axis=1)))
    together = source[index].image.astype(np.int64)
    signs = np.flatnonzero(source.labels()[index])
    assert len(signs) >= 2
    source._labels[index] = 0
    bare = source[index].image.astype(np.int64)
    touched = np.zeros(bare.shape[:2], dtype=np.bool_)
    for sign in signs:
        source._labels[index] = 0
        source._labels[index, sign] = 1
        touched |= (np.abs(source[index].image.astype(np.int64) - bare) > 0).any(axis=2)
    np.testing.assert_array_equal(together[~touched], bare[~touched])


def test_signs_of_the_disc_and_the_macula_change_sides_with_the_eye() -> None:
    source = SyntheticLabels(images=60, size=48, noise=0, imbalance=1)
    sides = []
    for index in (0, 1):
        source._labels[index] = 0
        without = grey(source[index].image)
        source._labels[index, 2] = 1  # a white ring at the disc
        change = np.abs(grey(source[index].image) - without)
        sides.append(float((change.sum(axis=0) * np.arange(48)).sum() / change.sum()))
    assert sides[0] < 20
    assert sides[1] > 28


def test_the_camera_sees_a_disc(eyes: SyntheticLabels) -> None:
    for index in range(10):
        picture = grey(eyes[index].image)
        assert picture[0, 0] == picture[-1, -1] == 0
        assert picture[16, 16] > 20


def test_difficulty_makes_signs_fainter_and_smaller() -> None:
    def contrast(difficulty: float) -> float:
        source = SyntheticLabels(images=60, size=48, difficulty=difficulty, noise=0)
        found = []
        for index in range(30):
            source._labels[index] = 0
            without = grey(source[index].image)
            source._labels[index, index % 12] = 1
            found.append(np.abs(grey(source[index].image) - without).sum())
        return float(np.mean(found))

    easy, middle, hard = contrast(0), contrast(0.5), contrast(1)
    assert easy > 1.4 * middle > 1.4 * 1.4 * hard


@pytest.mark.parametrize(
    ("key", "value"),
    [("images", 3), ("size", 4), ("classes", 1), ("classes", 17), ("imbalance", 0.5),
     ("co_occurrence", 1.1), ("difficulty", -0.1), ("noise", 0.9), ("seed", -1)],
)  # fmt: skip
def test_arguments_out_of_range_name_the_key(key: str, value: float) -> None:
    with pytest.raises(RecipeError, match=rf"data\.params\.{key}: {value} is not in"):
        SyntheticLabels(**{key: value})  # type: ignore[arg-type]


def test_a_recipe_opens_it_by_name() -> None:
    params = {"images": 40, "size": 24, "imbalance": 10}
    spec = DataSpec(name="synthetic_labels", params=params, input={"size": 16})
    assert len(open_source(spec)) == 40
