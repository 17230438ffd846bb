"""Operating points, against a search through every cut and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.bundle import OperatingPoint
from edgekd.errors import DataError, RecipeError
from edgekd.export.thresholds import check_classes, choose, measured, operating_points, rates
from edgekd.recipe_export import OperatingSpec
from edgekd.results import Predictions
from edgekd.tasks.classification import Classification

CLASSES = ("benign", "melanoma")


def images(seed: int, count: int = 60, *, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and which images are of the class; some of either kind."""
    random = np.random.default_rng(seed)
    positives = random.random(count) < 0.3
    positives[:2] = True, False
    overlapping = np.where(positives, random.beta(4, 2, count), random.beta(2, 4, count))
    return np.round(overlapping * steps) / steps, positives


def by_search(probabilities, positives, spec) -> tuple[float, float]:
    """The best (sensitivity, specificity) of all cuts that reach the aim."""
    best = None
    for cut in [0.0, *sorted(set(probabilities.tolist())), 2.0]:
        hits = sum(1 for p, own in zip(probabilities, positives, strict=True) if own and p >= cut)
        left = sum(
            1 for p, own in zip(probabilities, positives, strict=True) if not own and p < cut
        )
        pair = hits / int(positives.sum()), left / int((~positives).sum())
        if spec.sensitivity is not None and pair[0] >= spec.sensitivity - 1e-12:
            best = max(best or (0.0, 0.0), pair, key=lambda both: both[1])
        if spec.specificity is not None and pair[1] >= spec.specificity - 1e-12:
            best = max(best or (0.0, 0.0), pair, key=lambda both: both[0])
    assert best is not None
    return best


@pytest.mark.parametrize("aim", ["sensitivity", "specificity"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8, 0.9, 0.95, 0.999])
def test_the_best_of_all_cuts(aim: str, share: float) -> None:
    spec = OperatingSpec.model_validate({aim: share})
    for seed in range(25):
        probabilities, positives = images(seed)
        threshold = choose(probabilities, positives, spec)
        found = rates(probabilities, positives, ["one"] * len(positives), threshold)
        wanted = by_search(probabilities, positives, spec)
        aimed, other = (0, 1) if aim == "sensitivity" else (1, 0)
        pair = found.sensitivity.value, found.specificity.value
        assert pair[aimed] >= share - 1e-12
        assert pair[other] == pytest.approx(wanted[other])


def test_it_lies_between_images_so_that_rounding_moves_none() -> None:
    probabilities, positives = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True])
    assert choose(probabilities, positives, OperatingSpec(sensitivity=0.9)) == pytest.approx(0.5)
    assert choose(probabilities, positives, OperatingSpec(specificity=0.9)) == pytest.approx(0.5)
    assert choose(probabilities, positives, OperatingSpec(sensitivity=0.5)) == pytest.approx(0.75)
    assert choose(probabilities, positives, OperatingSpec(specificity=0.5)) == pytest.approx(0.25)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-300, np.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("aim", ["sensitivity", "specificity"])
def test_where_all_say_the_same(value: float, aim: str) -> None:
    probabilities, positives = np.full(4, value), np.array([True, False, True, False])
    threshold = choose(probabilities, positives, OperatingSpec.model_validate({aim: 0.9}))
    found = rates(probabilities, positives, list("abcd"), threshold)
    assert 0.0 <= threshold <= 1.0
    # no threshold in [0, 1] leaves out an image of probability 1
    assert getattr(found, aim).value == (0.0 if (value, aim) == (1.0, "specificity") else 1.0)


def test_an_aim_that_no_threshold_reaches_is_said() -> None:
    said: list[str] = []
    logits = np.array([[0.0, 900.0]] * 4)  # probabilities of exactly 1
    known = Predictions(list("abcd"), list("abcd"), np.array([0, 1, 0, 1]), logits)
    task = Classification(classes=CLASSES)
    points = operating_points(
        task, known, {"melanoma": OperatingSpec(specificity=0.9)}, said.append
    )
    assert points["melanoma"].threshold == 1.0
    assert any("no threshold reaches a specificity of 0.9" in line for line in said)


def test_neighbouring_numbers_are_told_apart() -> None:
    low = 0.5
    high = np.nextafter(low, 1.0)
    probabilities, positives = np.array([low, high]), np.array([False, True])
    for spec in (OperatingSpec(sensitivity=0.9), OperatingSpec(specificity=0.9)):
        found = rates(probabilities, positives, ["a", "b"], choose(probabilities, positives, spec))
        assert (found.sensitivity.value, found.specificity.value) == (1.0, 1.0)


class TestRates:
    def test_counts_by_hand(self) -> None:
        probabilities = np.array([0.9, 0.5, 0.2, 0.5, 0.4, 0.1])
        positives = np.array([True, True, True, False, False, False])
        found = rates(probabilities, positives, list("aabbcd"), 0.5)
        assert found.sensitivity.value == pytest.approx(2 / 3)
        assert found.specificity.value == pytest.approx(2 / 3)
        assert (found.sensitivity.images, found.sensitivity.groups) == (3, 2)
        assert (found.specificity.images, found.specificity.groups) == (3, 3)

    def test_the_interval_counts_groups_not_images(self) -> None:
        probabilities = np.tile([0.9, 0.1], 100)
        positives = np.ones(200, dtype=bool)
        apart = rates(probabilities, positives, [str(i) for i in range(200)], 0.5).sensitivity
        together = rates(
            probabilities, positives, [str(i % 8) for i in range(200)], 0.5
        ).sensitivity
        assert apart.low is not None
        assert apart.high is not None
        assert together.low is not None
        assert together.high is not None
        assert 0.4 < apart.low < 0.5 < apart.high < 0.6
        assert together.high - together.low > 3 * (apart.high - apart.low)

    @pytest.mark.parametrize("count", [1, 10, 100])
    def test_all_found_of_few_says_little(self, count: int) -> None:
        from scipy.stats import beta

        positives = np.ones(count, dtype=bool)
        groups = [str(i) for i in range(count)]
        all_found = rates(np.ones(count), positives, groups, 0.5).sensitivity
        none_found = rates(np.zeros(count), positives, groups, 0.5).sensitivity
        assert all_found.low == pytest.approx(beta.ppf(0.025, count, 1))
        assert all_found.high == 1.0
        assert none_found.low == 0.0
        assert none_found.high == pytest.approx(beta.ppf(0.975, 1, count))

    def test_a_class_without_images(self) -> None:
        found = rates(np.array([0.1]), np.array([False]), ["a"], 0.5)
        assert found.sensitivity.value is None
        assert found.specificity.value == 1.0


def said(targets: list[int], melanoma: list[float]) -> Predictions:
    names = [str(number) for number in range(len(targets))]
    p = np.array(melanoma)
    logits = np.stack([np.log(1 - p), np.log(p)], axis=1).astype(np.float32)
    return Predictions(names, names, np.array(targets, dtype=np.int64), logits)


class TestPoints:
    task = Classification(classes=CLASSES)
    wanted = {"melanoma": OperatingSpec(sensitivity=0.9)}

    def test_unlabelled_images_do_not_count(self) -> None:
        lines: list[str] = []
        validation = said([0, 0, 1, 1, -1], [0.1, 0.3, 0.5, 0.8, 0.49])
        (point,) = operating_points(self.task, validation, self.wanted, lines.append).values()
        assert point.threshold == pytest.approx(0.4)
        assert (point.aim, point.at_least) == ("sensitivity", 0.9)
        assert point.validation is not None
        assert point.validation.sensitivity.images == point.validation.specificity.images == 2
        assert lines == ["melanoma: flagged from 0.4000 on, chosen on 2 validation images of it "
                         "and 2 others"]  # fmt: skip

    @pytest.mark.parametrize("targets", [[0, 0], [1, 1], [-1, -1], []])
    def test_without_images_of_either_kind(self, targets: list[int]) -> None:
        with pytest.raises(DataError, match=r"thresholds\.melanoma: of \d labelled"):
            operating_points(
                self.task, said(targets, [0.5] * len(targets)), self.wanted, lambda _: None
            )

    def test_a_class_that_is_not_there(self) -> None:
        with pytest.raises(RecipeError, match="no class 'melanom'") as caught:
            check_classes({"melanom": OperatingSpec(sensitivity=0.9)}, self.task)
        assert caught.value.hint == "did you mean 'melanoma'?"

    def test_test_images_are_measured_by_artifact(self, manifest_of_two) -> None:
        test = said([0, 1, 1], [0.45, 0.45, 0.2])
        manifest = measured(manifest_of_two, "onnx-fp32", test, self.task)
        manifest = measured(manifest, "onnx-int8", None, self.task)
        found = manifest.thresholds["melanoma"].test
        assert list(found) == ["onnx-fp32"]
        assert found["onnx-fp32"].sensitivity.value == 0.5
        assert found["onnx-fp32"].specificity.value == 0.0
        manifest = measured(manifest, "onnx-fp32", None, self.task)  # made anew, without images
        assert manifest.thresholds["melanoma"].test == {}

    @pytest.fixture
    def manifest_of_two(self, tmp_path):
        from tests.tiny_bundle import write_bundle

        point = OperatingPoint(threshold=0.4, aim="sensitivity", at_least=0.9)
        return write_bundle(tmp_path).model_copy(update={"thresholds": {"melanoma": point}})


@pytest.mark.parametrize("tree", [{}, {"sensitivity": 0.9, "specificity": 0.9},
                                  {"sensitivity": 1.0}, {"sensitivity": 0}, {"recall": 0.9}]
                         )  # fmt: skip
def test_a_recipe_gives_one_share_between_0_and_1(tree: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"sensitivity|recall"):
        OperatingSpec.model_validate(tree)


def test_a_recipe_without_operating_points_is_written_as_before() -> None:
    from edgekd.recipe import ExportSpec

    assert "thresholds" not in ExportSpec().model_dump()
    assert "thresholds" in ExportSpec(thresholds={"a": OperatingSpec(sensitivity=0.9)}).model_dump()
