"""The drawn data set: what it promises about pixels, labels, patients and difficulty."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgekd.data.synthetic import Synthetic
from edgekd.errors import RecipeError


@pytest.fixture(scope="module")
def lesions() -> Synthetic:
    return Synthetic(images=1000, size=24)


@pytest.fixture(scope="module")
def pictures(lesions: Synthetic) -> npt.NDArray[np.uint8]:
    return np.stack([lesions[index].image for index in range(len(lesions))])


def test_same_arguments_draw_the_same_pixels_in_any_order() -> None:
    first, second = Synthetic(images=40, size=24, seed=5), Synthetic(images=40, size=24, seed=5)
    backwards = {index: second[index].image for index in reversed(range(40))}
    for index in range(40):
        np.testing.assert_array_equal(first[index].image, backwards[index])
    assert first.fingerprint() == second.fingerprint()


def test_pictures_are_those_of_the_first_release() -> None:
    """Runs and bundles that others keep name this hash: raise VERSION with it."""
    source = Synthetic(images=20, size=16)
    assert source.fingerprint() == (
        "e1c3a841119b78e2d952432617818513d08062d7bc20ff8dea25d6391af1c182"
    )
    # of one machine: the last bit of a sine may be another elsewhere, and round a pixel otherwise
    mean = float(np.mean([source[index].image for index in range(20)]))
    assert mean == pytest.approx(134.530, abs=0.01)


def test_with_masks_the_pictures_are_the_same_and_the_lesion_is_the_class() -> None:
    plain, source = Synthetic(images=40, size=24), Synthetic(images=40, size=24, masks=True)
    assert source.classes == ("lesion",)
    assert source.kinds() == plain.kinds() == plain.classes == Synthetic.classes
    assert (source.has_masks, plain.has_masks) == (True, False)
    assert source.parts() == plain.parts()
    np.testing.assert_array_equal(source.targets(), plain.targets())
    for index in range(40):
        np.testing.assert_array_equal(source[index].image, plain[index].image)
        assert source.mask(index).dtype == np.uint8
        assert 0.05 < source.mask(index).mean() < 0.5
    assert source.fingerprint() != plain.fingerprint()


def test_some_pictures_may_be_of_skin_without_a_lesion() -> None:
    full = Synthetic(images=200, size=24, masks=True)
    source = Synthetic(images=200, size=24, masks=True, empty=0.4)
    without = [index for index in range(200) if not source.mask(index).any()]
    none = np.flatnonzero(full.true_grades() == 0)
    assert set(without) < set(none)
    assert len(without) / len(none) == pytest.approx(0.4, abs=0.1)
    for index in range(200):
        mask, same = full.mask(index) == 1, source[index].image == full[index].image
        if index not in without:
            assert same.all()
            np.testing.assert_array_equal(source.mask(index), full.mask(index))
        else:
            assert source[index].image[mask].mean() > full[index].image[mask].mean() + 15
    assert source.fingerprint() != full.fingerprint()
    with pytest.raises(RecipeError, match=r"data\.params\.empty: 0\.4 is not in \[0, 0\]"):
        Synthetic(images=20, empty=0.4)  # nothing to leave out where grades are learned


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"size": 32}, {"noise": 0.1}, {"cue_noise": 0.2}, {"label_noise": 0.5}]
)
def test_every_argument_is_in_the_fingerprint(other: dict[str, float]) -> None:
    plain = {"images": 200, "size": 24, "seed": 5}
    changed = Synthetic(**{**plain, **other})  # type: ignore[arg-type]
    assert changed.fingerprint() != Synthetic(**plain).fingerprint()  # type: ignore[arg-type]


def test_a_sample_agrees_with_the_columns(lesions: Synthetic) -> None:
    sample = lesions[7]
    assert sample.image.shape == (24, 24, 3)
    assert sample.image.dtype == np.uint8
    assert sample.target == lesions.targets()[7]
    assert (sample.id, sample.group) == (lesions.ids()[7], lesions.groups()[7])
    assert len(set(lesions.ids())) == len(lesions)
    with pytest.raises(IndexError):
        lesions[len(lesions)]


def test_severe_grades_are_rare(lesions: Synthetic) -> None:
    shares = np.bincount(lesions.true_grades()) / len(lesions)
    assert list(np.argsort(-shares)) == [0, 1, 2, 3]
    assert 0.4 < shares[0] < 0.5
    assert 0.05 < shares[3] < 0.15


def test_patients_have_several_images_and_stay_in_one_part(lesions: Synthetic) -> None:
    homes: dict[str, set[str]] = {}
    for group, part in zip(lesions.groups(), lesions.parts(), strict=True):
        homes.setdefault(group, set()).add(part)
    assert all(len(parts) == 1 for parts in homes.values())
    assert len(homes) < 0.6 * len(lesions)


def test_every_part_has_its_share_and_every_grade(lesions: Synthetic) -> None:
    parts = np.array(lesions.parts())
    for part, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs((parts == part).mean() - share) < 0.03
        assert set(lesions.targets()[parts == part]) == {0, 1, 2, 3}


def test_only_train_and_val_labels_are_noisy_and_only_by_one_grade() -> None:
    source = Synthetic(images=2000, size=16, label_noise=0.2)
    parts = np.array(source.parts())
    off = np.abs(source.targets() - source.true_grades())
    assert off.max() == 1
    assert (off[parts == "test"] == 0).all()
    assert 0.15 < off[parts != "test"].mean() < 0.25


def test_the_mask_covers_what_is_darker_than_the_skin(lesions: Synthetic) -> None:
    for index in range(20):
        mask = lesions.mask(index)
        assert mask.shape == (24, 24)
        assert set(np.unique(mask)) == {0, 1}
        grey = lesions[index].image.mean(axis=2)
        assert grey[mask == 1].mean() < grey[mask == 0].mean() - 15


def test_neither_colour_nor_size_tells_the_grade(
    lesions: Synthetic, pictures: npt.NDArray[np.uint8]
) -> None:
    area = [lesions.mask(index).mean() for index in range(len(lesions))]
    for fact in (pictures.mean(axis=(1, 2, 3)), area):
        assert abs(np.corrcoef(fact, lesions.true_grades())[0, 1]) < 0.1


def test_a_linear_model_on_pixels_does_not_beat_the_majority(
    lesions: Synthetic, pictures: npt.NDArray[np.uint8]
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    cells = pictures.reshape(-1, 8, 3, 8, 3, 3).mean(axis=(2, 4)).reshape(len(lesions), -1)
    targets, is_test = lesions.targets(), np.array(lesions.parts()) == "test"
    scaled = StandardScaler().fit_transform(cells)
    model = LogisticRegression(C=1e-3, max_iter=300).fit(scaled[~is_test], targets[~is_test])
    majority = np.bincount(targets[is_test]).max() / is_test.sum()
    assert model.score(scaled[is_test], targets[is_test]) <= majority + 0.05


@pytest.mark.parametrize(
    ("key", "value"), [("images", 3), ("size", 4), ("noise", -0.1), ("label_noise", 1.5)]
)
def test_arguments_out_of_range_name_the_key(key: str, value: float) -> None:
    with pytest.raises(RecipeError, match=rf"data\.params\.{key}.*{value}"):
        Synthetic(**{key: value})  # type: ignore[arg-type]
