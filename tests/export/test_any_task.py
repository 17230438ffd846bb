"""The gate and its neighbours take tasks of any shape: several labels per image, masks.

The two tasks of tests/toy_tasks.py are what a file in edgekd/tasks would be; nothing knows them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import Check, Gate
from edgekd.data.calibration import choose
from edgekd.errors import BundleError, DataError, EdgekdError
from edgekd.export.evidence import group_changes, loss_of, tango_upper
from edgekd.export.gate import gate, refusals, why
from edgekd.export.golden import GoldenResult, compare, write_golden
from edgekd.export.parity import agrees, parity
from edgekd.recipe import GateSpec
from edgekd.recipe_data import InputSpec
from edgekd.results import Predictions
from edgekd.tasks.base import Floats, Ints, Task
from tests.toy_tasks import (
    FINDINGS,
    LAYERS,
    LESION,
    SIDE,
    MultiLabel,
    Segmentation,
    findings,
    masks,
)

NEAR = GoldenResult(images=8, pixels=0.0, logits=0.2, scale=5.0, flips=1, changed=0.125)
SAME = replace(NEAR, logits=0.0, flips=0, changed=0.0)

EACH = pytest.mark.parametrize(
    ("task", "predictions"),
    [(FINDINGS, findings), (LESION, masks), (LAYERS, lambda n, **_: masks(n, task=LAYERS))],
    ids=["labels", "one-channel", "channels"],
)


def judge(
    task: Task,
    reference: Predictions,
    candidate: Predictions,
    golden: GoldenResult = NEAR,
    precision: str = "int8",
) -> Gate:
    return gate(task, reference, candidate, golden=golden, limits=GateSpec(), precision=precision)


def check(result: Gate, name: str) -> Check:
    return next(entry for entry in result.checks if entry.name == name)


def changed(said: Predictions, rows: object) -> Predictions:
    """The same, but `rows` of the logits (any index) are turned to "no"."""
    logits = said.logits.copy()
    logits[rows] = -4.0
    return replace(said, logits=logits)


class TestVerdicts:
    @EACH
    def test_the_same_decisions_on_many_images_pass(self, task, predictions) -> None:
        result = judge(task, predictions(300), predictions(300, seed=1))
        assert (result.verdict, result.images) == ("passed", 300)
        judged = [one.name for one in result.checks if one.name.startswith("sensitivity:")]
        assert judged == [f"sensitivity:{label}" for label in task.classes]

    @EACH
    def test_on_few_images_the_same_decisions_prove_nothing(self, task, predictions) -> None:
        result = judge(task, predictions(40), predictions(40))
        assert result.verdict == "inconclusive"
        assert "0 groups lost, 0 won, of 40" in why(result)

    @EACH
    def test_nan_is_refused(self, task, predictions) -> None:
        broken = predictions(300)
        broken.logits[7, 0] = np.nan
        result = judge(task, predictions(300), broken)
        assert result.verdict == "refused"
        assert "not finite" in why(result)
        assert refusals(task, predictions(300), broken, GateSpec())

    @EACH
    def test_images_with_an_unknown_target_do_not_count(self, task, predictions) -> None:
        reference, candidate = predictions(300), predictions(300)
        for one in (reference, candidate):
            one.targets[:100, 0] = -1  # one label, or one row of pixels
        assert judge(task, reference, candidate).images == 200

    @EACH
    def test_equal_logits_are_enough_in_fp32(self, task, predictions) -> None:
        few = predictions(5)
        assert judge(task, few, few, golden=SAME, precision="fp32").verdict == "passed"


class TestHarm:
    def test_a_rare_label_that_vanishes_is_refused_by_name(self) -> None:
        """60 of 15,000 labels: less than half a point, and the whole label."""
        reference = findings(3000)
        blind = changed(reference, np.s_[:60, 4])
        result = judge(FINDINGS, reference, blind)
        assert check(result, "non-inferiority").value == pytest.approx(60 / 15_000)
        assert check(result, "non-inferiority").verdict == "passed"
        assert why(result).startswith("sensitivity:mass")
        assert [one.name for one in refusals(FINDINGS, reference, blind, GateSpec())] == [
            "sensitivity:mass"
        ]

    def test_small_lesions_that_vanish_are_refused_by_name(self) -> None:
        """60 of 400 lesions, but one pixel of fifty: the pooled overlap hardly moves."""
        task = Segmentation(classes=("lesion",), primary="pooled_dice")
        reference = masks(400)
        blind = changed(reference, np.s_[:60])
        result = judge(task, reference, blind)
        assert check(result, "non-inferiority").value < 0.02 < 60 / 400
        found = check(result, "sensitivity:lesion")
        assert (found.verdict, found.value) == ("refused", pytest.approx(60 / 400))
        assert "sensitivity 1.000 before, 0.850 after" in found.detail
        assert result.verdict == "refused"

    def test_a_label_of_few_images_leaves_an_average_over_labels_open(self) -> None:
        task = MultiLabel(classes=FINDINGS.classes, primary="mean_recall")
        few, many = (judge(task, said, said) for said in (findings(900, rare=6), findings(900)))
        assert few.verdict == "inconclusive"
        assert "the rarest class has 6 groups" in check(few, "evidence").detail
        assert check(many, "evidence").high < check(few, "evidence").high

    def test_without_any_positive_an_average_over_labels_stays_open(self) -> None:
        task = MultiLabel(classes=FINDINGS.classes, primary="mean_recall")
        said = findings(300)
        said.targets[:] = 0
        with np.errstate(invalid="ignore"):
            assert judge(task, said, said).verdict == "inconclusive"


class TestDecisionsThatAreRightInPart:
    def test_a_part_of_a_flip_counts_as_that_part(self) -> None:
        before, after = np.ones(400), np.ones(400)
        after[:40] = 0.9
        loss = loss_of(before, after, [str(i) for i in range(400)])
        assert (loss.lost, loss.won, loss.units) == (pytest.approx(4.0), 0.0, 400)
        assert loss.point == pytest.approx(0.01)
        assert loss.upper == pytest.approx(tango_upper(4, 0, 400))

    def test_a_group_loses_at_most_itself(self) -> None:
        before, after = np.ones(6), np.array([0.4, 0.4, 0.4, 0.9, 1.0, 1.0])
        assert group_changes(before, after, list("aaabbb")) == (pytest.approx(1.1), 0.0, 2)

    def test_whole_decisions_count_the_same_as_numbers(self) -> None:
        random = np.random.default_rng(0)
        before, after = random.random((2, 200)) < 0.8
        groups = [str(i // 3) for i in range(200)]
        assert loss_of(before, after, groups) == loss_of(before * 1.0, after * 1.0, groups)

    def test_small_changes_of_every_image_do_not_stand_for_many_images(self) -> None:
        """The bootstrap sees 30 small changes; a lost lesion may just not be among them."""
        reference, candidate = masks(30, small=0), masks(30, small=0)
        for said, rows in ((candidate, np.s_[::2]), (reference, np.s_[1::2])):
            said.logits[rows, 0, 0, 0] = -4.0
        result = judge(LESION, reference, candidate)
        assert check(result, "non-inferiority").verdict == "passed"
        assert result.verdict == "inconclusive"
        assert "0.2 groups lost, 0.2 won, of 30" in why(result)

    def test_small_changes_of_every_image_pass_on_many(self) -> None:
        reference = masks(900)
        candidate = changed(reference, np.s_[60::10, 0, 0, 0])  # a pixel of a tenth of the lesions
        result = judge(LESION, reference, candidate)
        assert result.verdict == "passed"
        assert 0 < check(result, "non-inferiority").value < 0.002

    def test_mcnemar_is_for_whole_decisions_only(self) -> None:
        reference = masks(300)
        whole, part = (judge(LESION, reference, changed(reference, rows))
                       for rows in (np.s_[:1], np.s_[:1, 0, 0, 0]))  # fmt: skip
        assert "1 right before and wrong now" in check(whole, "mcnemar").detail
        assert "mcnemar" not in [entry.name for entry in part.checks]


class TestMistakes:
    def test_images_that_were_labelled_for_another_task(self) -> None:
        said = masks(20)
        graded = replace(said, targets=said.targets[:, 0, 0])
        with pytest.raises(DataError, match=r"targets \(20,\) are not for task 'segmentation'"):
            judge(LESION, graded, graded)

    @pytest.mark.parametrize("scale", [100.0, math.nan])
    def test_a_rightness_that_is_no_share(self, scale: float) -> None:
        class Percent(Segmentation):
            def rightness(self, decisions: Ints, targets: Ints) -> Floats:
                return scale * super().rightness(decisions, targets)

        said = masks(20)
        with pytest.raises(EdgekdError, match="one number in \\[0, 1\\] per image"):
            judge(Percent(classes=("lesion",)), said, said)

    def test_a_task_that_does_not_say_what_is_right(self) -> None:
        class Silent(MultiLabel):
            rightness = Task.rightness

        said = findings(20)
        with pytest.raises(EdgekdError, match="'multilabel' does not define `rightness`"):
            judge(Silent(classes=FINDINGS.classes), said, said)


class TestOtherwiseDecided:
    def test_an_image_in_which_one_label_or_pixel_differs_is_counted_once(self) -> None:
        for task, said, where in (
            (FINDINGS, findings(50), np.s_[:3, 0]),  # on in the first of three only
            (LESION, masks(50), np.s_[:1, 0, :2, :2]),
        ):
            result = judge(task, said, changed(said, where), golden=SAME, precision="fp32")
            assert check(result, "parity-test").detail.endswith("; 1 decided otherwise")

    def test_golden_pictures_are_compared_as_the_task_decides(self, tmp_path: Path) -> None:
        """One channel has no highest one, and two labels may change below the highest."""
        spec = InputSpec(size=SIDE)

        def lesion(inputs: Floats) -> Floats:
            return inputs[:, :1] - 0.5

        golden = write_golden(tmp_path, spec, lesion)
        assert golden.outputs.shape == (8, 1, SIDE, SIDE)
        same = compare(golden, spec, lesion, LESION)
        assert (same.flips, same.changed, agrees(same)) == (0, 0.0, True)
        inverted = compare(golden, spec, lambda x: -lesion(x), LESION)
        assert inverted.flips == 8
        assert inverted.changed > 0.9
        assert "8 of 8 golden pictures decided otherwise" in parity(inverted, True).detail

    def test_a_pixel_at_the_threshold_refuses_no_exact_artifact_and_a_label_does(self) -> None:
        rounding = replace(SAME, logits=1e-6)
        assert agrees(replace(rounding, flips=2, changed=2 / (8 * 64 * 64)))
        assert not agrees(replace(rounding, flips=1, changed=1 / 8))
        assert not agrees(replace(rounding, flips=1, changed=1 / (8 * 20)))

    def test_what_is_not_finite_is_decided_otherwise(self) -> None:
        said = masks(4).logits
        broken = said.copy()
        broken[1, 0, 5, 5] = np.inf
        assert LESION.decided_otherwise(said, broken).tolist() == [0.0, 1.0, 0.0, 0.0]

    def test_an_artifact_with_logits_of_another_shape_is_no_such_model(
        self, tmp_path: Path
    ) -> None:
        spec = InputSpec(size=SIDE)
        golden = write_golden(tmp_path, spec, lambda x: x[:, :1])
        with pytest.raises(BundleError, match=r"gives logits \(8, 1\), stored are \(8, 1, 12"):
            compare(golden, spec, lambda x: x[:, 0, 0, :1], LESION)


def test_strata_take_turns_in_the_calibration_set() -> None:
    for task, said in ((FINDINGS, findings(900, rare=20)), (LAYERS, masks(900, task=LAYERS))):
        strata = task.strata(said.targets)
        chosen = choose(strata, said.groups, np.arange(900), 20, seed=0)
        kinds, counts = np.unique(strata[chosen], return_counts=True)
        assert kinds.tolist() == np.unique(strata).tolist()
        assert counts.max() - counts.min() <= 1


@EACH
def test_predictions_of_any_shape_are_kept_and_scored(task, predictions, tmp_path: Path) -> None:
    said = predictions(30)
    said.save(tmp_path / "said.npz")
    again = Predictions.load(tmp_path / "said.npz")
    np.testing.assert_array_equal(again.targets, said.targets)
    np.testing.assert_array_equal(again.logits, said.logits)
    again.targets[:10, 0] = -1
    score = task.score(again, resamples=50)[task.primary]
    assert (score.value, score.low, score.images) == (1.0, 1.0, 20)
    assert task.value(task.primary, again) == 1.0
