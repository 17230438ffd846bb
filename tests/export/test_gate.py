"""The gate refuses a damaged model, leaves a small test set open, and passes an honest one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.bundle import Check
from edgekd.errors import DataError
from edgekd.export.evidence import group_changes, tango_upper, units_needed
from edgekd.export.gate import combine, gate, why
from edgekd.export.golden import GoldenResult
from edgekd.recipe import GateSpec
from edgekd.results import Predictions
from edgekd.tasks.classification import Classification

CLASSES = ("benign", "malignant", "other")
TASK = Classification(classes=CLASSES)
SAME = GoldenResult(images=8, pixels=0.0, logits=1e-6, scale=5.0, flips=0, changed=0.0)
NEAR = GoldenResult(images=8, pixels=0.0, logits=0.2, scale=5.0, flips=1, changed=0.125)
LIMITS = GateSpec()


def predictions(count, *, wrong=(), groups=None, seed=0):
    """A model that is right on every image but those in `wrong`."""
    targets = np.arange(count) % len(CLASSES)
    decided = targets.copy()
    decided[list(wrong)] = (decided[list(wrong)] + 1) % len(CLASSES)
    noise = np.random.default_rng(seed).normal(0, 0.1, (count, len(CLASSES)))
    logits = (4.0 * np.eye(len(CLASSES))[decided] + noise).astype(np.float32)
    ids = [f"image-{i}" for i in range(count)]
    return Predictions(ids, list(groups or ids), targets.astype(np.int64), logits)


def judge(candidate, *, reference=None, golden=NEAR, precision="int8", limits=LIMITS, task=TASK):
    reference = predictions(len(candidate.ids)) if reference is None else reference
    return gate(task, reference, candidate, golden=golden, limits=limits, precision=precision)


def check(result, name):
    return next(entry for entry in result.checks if entry.name == name)


class TestInt8:
    def test_equal_decisions_on_many_images_pass(self):
        result = judge(predictions(400, seed=1))
        assert result.verdict == "passed"
        assert (result.images, result.groups) == (400, 400)
        assert why(result) == ""

    def test_a_few_flips_on_a_thousand_images_pass(self):
        result = judge(predictions(1000, wrong=(5, 99, 400), seed=1))
        assert result.verdict == "passed"
        assert check(result, "non-inferiority").value == pytest.approx(0.003)

    def test_a_damaged_model_is_refused(self):
        damaged = predictions(400)
        shuffled = Predictions(
            damaged.ids, damaged.groups, damaged.targets, damaged.logits[:, [1, 2, 0]]
        )
        result = judge(shuffled)
        assert result.verdict == "refused"
        assert "accuracy fell by 100.00 points, at most 0.5" in why(result)

    def test_losing_just_more_than_the_limit_is_refused(self):
        result = judge(predictions(1000, wrong=range(6)))
        assert result.verdict == "refused"

    def test_a_tiny_test_set_is_inconclusive_even_when_every_decision_is_the_same(self):
        result = judge(predictions(40, seed=1))
        assert check(result, "non-inferiority").high == 0.0  # the bootstrap sees nothing
        assert result.verdict == "inconclusive"
        assert "0 groups lost, 0 won, of 40" in why(result)

    @pytest.mark.parametrize(("count", "verdict"), [(252, "inconclusive"), (253, "passed")])
    def test_without_a_flip_253_groups_suffice(self, count, verdict):
        assert judge(predictions(count)).verdict == verdict

    def test_many_images_of_few_patients_are_little_evidence(self):
        patients = [f"patient-{i // 10}" for i in range(1000)]
        reference, candidate = (predictions(1000, groups=patients, seed=s) for s in (0, 1))
        result = judge(candidate, reference=reference)
        assert (result.images, result.groups) == (1000, 100)
        assert result.verdict == "inconclusive"

    def test_a_wide_interval_is_inconclusive(self):
        lost, won = range(0, 10), range(10, 20)
        result = judge(predictions(500, wrong=lost), reference=predictions(500, wrong=won))
        assert check(result, "non-inferiority").value == 0.0
        assert result.verdict == "inconclusive"

    def test_a_recipe_may_ask_for_more(self):
        strict = GateSpec(max_drop=0.1, max_drop_bound=0.5)
        assert judge(predictions(400), limits=strict).verdict == "inconclusive"
        assert judge(predictions(1000, wrong=(1, 2)), limits=strict).verdict == "refused"

    def test_a_score_where_less_is_better_is_guarded_the_other_way_round(self):
        task = Classification(classes=CLASSES, primary="nll")
        worse, better = predictions(400, wrong=range(20)), predictions(400)
        assert judge(worse, task=task).verdict == "refused"
        gained = judge(better, reference=worse, task=task)
        assert check(gained, "non-inferiority").verdict == "passed"
        assert check(gained, "non-inferiority").value < 0

    def test_nan_is_refused(self):
        broken = predictions(400)
        broken.logits[3, 1] = np.nan
        result = judge(broken)
        assert result.verdict == "refused"
        assert "not finite" in why(result)

    def test_nan_on_the_golden_pictures_is_refused(self):
        nan = GoldenResult(8, 0.0, math.nan, 5.0, 8, 1.0, is_finite=False)
        assert judge(predictions(400), golden=nan).verdict == "refused"

    def test_no_test_images_is_inconclusive_and_says_why(self):
        result = gate(TASK, None, None, golden=NEAR, limits=LIMITS, precision="int8",
                      why_no_images="the data is elsewhere")  # fmt: skip
        assert result.verdict == "inconclusive"
        assert why(result) == "non-inferiority: the data is elsewhere"

    def test_images_without_a_label_do_not_count(self):
        reference, candidate = predictions(300), predictions(300)
        for one in (reference, candidate):
            one.targets[:100] = -1
        assert judge(candidate, reference=reference).images == 200

    def test_other_images_are_an_error(self):
        with pytest.raises(DataError, match="not on the same images"):
            judge(predictions(10), reference=predictions(11))


class TestFp32:
    def test_equal_logits_pass_on_any_number_of_images(self):
        reference = predictions(5)
        result = judge(reference, reference=reference, golden=SAME, precision="fp32")
        assert result.verdict == "passed"
        assert check(result, "evidence").verdict == "reported"

    def test_different_logits_on_the_golden_pictures_are_refused(self):
        assert judge(predictions(400), golden=NEAR, precision="fp32").verdict == "refused"

    def test_without_parity_on_the_test_images_statistics_decide(self):
        """The stored predictions may come from mixed precision; that alone refuses nothing."""
        few = judge(predictions(40, seed=1), golden=SAME, precision="fp32")
        many = judge(predictions(400, seed=1), golden=SAME, precision="fp32")
        assert (few.verdict, many.verdict) == ("inconclusive", "passed")
        assert check(many, "parity-test").verdict == "reported"

    def test_other_pixels_are_refused(self):
        drifted = GoldenResult(images=8, pixels=0.1, logits=0.0, scale=5.0, flips=0, changed=0.0)
        result = judge(predictions(400), golden=drifted, precision="fp32")
        assert why(result).startswith("preprocessing")

    def test_parity_is_enough_where_there_are_no_test_images(self):
        result = gate(TASK, None, None, golden=SAME, limits=LIMITS, precision="fp32")
        assert result.verdict == "passed"


class TestSensitivity:
    def test_a_class_that_vanishes_is_refused_although_the_score_hardly_moves(self):
        """50 of 11,000 images: less than half a point of accuracy, and the whole class."""
        count = 11_000
        reference = predictions(count)
        reference.targets[:] = np.where(np.arange(count) < 50, 1, 0)
        reference.logits[:] = 4.0 * np.eye(3, dtype=np.float32)[reference.targets]
        blind = reference.logits.copy()
        blind[:50] = [4.0, 0.0, 0.0]
        candidate = Predictions(reference.ids, reference.groups, reference.targets, blind)
        result = judge(candidate, reference=reference)
        assert check(result, "non-inferiority").verdict == "passed"
        assert check(result, "sensitivity:malignant").verdict == "refused"
        assert result.verdict == "refused"

    def test_a_class_with_few_positives_is_inconclusive_for_itself_only(self):
        reference = predictions(400)
        reference.targets[:] = 0
        reference.targets[:10] = 2
        reference.logits[:] = 4.0 * np.eye(3, dtype=np.float32)[reference.targets]
        result = judge(reference, reference=reference)
        assert check(result, "sensitivity:other").verdict == "inconclusive"
        assert check(result, "sensitivity:malignant").detail == "no positives"
        assert result.verdict == "passed"

    def test_sixty_equal_positives_do_not_prove_a_class(self):
        assert check(judge(predictions(300)), "sensitivity:benign").verdict == "reported"
        assert check(judge(predictions(900)), "sensitivity:benign").verdict == "passed"


def test_calibration_and_mcnemar_are_reported_and_decide_nothing():
    result = judge(predictions(400, seed=2))
    for name in ("calibration:ece", "calibration:brier", "mcnemar"):
        assert check(result, name).verdict == "reported"
    assert check(result, "mcnemar").value == 1.0


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["passed", "reported"], "passed"),
        (["passed", "inconclusive"], "inconclusive"),
        (["refused", "inconclusive"], "refused"),
    ],
)
def test_the_worst_check_decides(verdicts, expected):
    assert combine([Check(name="x", verdict=verdict) for verdict in verdicts]) == expected


class TestEvidence:
    @pytest.mark.parametrize(("lost", "won", "units"), [(0, 0, 50), (3, 0, 200), (4, 7, 90)])
    def test_the_bound_solves_the_score_equation(self, lost, won, units):
        """Oracle: q by a grid search of the likelihood under the bound, then the statistic."""
        d = tango_upper(lost, won, units)
        q = np.linspace(1e-9, (1 - d) / 2 - 1e-9, 200_001)
        same = units - lost - won
        likelihood = same * np.log(1 - 2 * q - d) + lost * np.log(q + d) + won * np.log(q)
        if won == 0:  # its maximum may lie at the edge q = 0
            likelihood = same * np.log(1 - 2 * q - d) + lost * np.log(q + d)
        best = q[likelihood.argmax()]
        z = (lost - won - units * d) / math.sqrt(units * (2 * best + d * (1 - d)))
        assert z == pytest.approx(-1.96, abs=2e-3)

    @pytest.mark.parametrize(
        ("lost", "won", "needed"), [(0, 0, 253), (1, 0, 374), (2, 0, 483), (3, 0, 584), (2, 2, 363)]
    )
    def test_the_documented_numbers_of_groups(self, lost, won, needed):
        assert units_needed(0.015, lost, won) == needed

    def test_nothing_seen_shows_nothing(self):
        assert tango_upper(0, 0, 0) == 1.0
        assert tango_upper(10, 0, 10) == pytest.approx(1.0)

    def test_a_group_counts_once_and_by_its_balance(self):
        before = np.array([True, True, False, True, True])
        after = np.array([False, False, True, True, True])
        assert group_changes(before, after, ["a", "a", "b", "c", "c"]) == (1, 1, 3)
        assert group_changes(before, after, ["a", "a", "a", "c", "c"]) == (1, 0, 2)
