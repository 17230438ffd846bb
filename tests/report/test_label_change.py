"""What each class gains on the baseline of a sweep, and why it cannot always be said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from edgekd.report.join import join
from edgekd.report.label_records import LabelEvidence
from edgekd.report.records import ReportData
from edgekd.results import Predictions
from edgekd.rundir import RunDir
from tests.report import label_run
from tests.report.label_run import sweep

ORDER = [1, 0, 2, 4, 3]  # by training images


def evidence(data: ReportData) -> LabelEvidence:
    assert data.labels is not None
    return data.labels


def test_each_class_is_held_against_the_baseline_of_the_same_seed(tmp_path: Path) -> None:
    change = evidence(join(sweep(tmp_path).root)).change
    assert change is not None
    assert change.baseline == "erm"
    ours, theirs = label_run.said(2.5, 3), label_run.said(1.0, 3)
    gains = []
    for place, column in enumerate(ORDER[:-1]):
        known = ours.targets[:, column] >= 0
        first, second = (
            average_precision_score(one.targets[known, column], one.logits[known, column])
            for one in (ours, theirs)
        )
        gains.append(first - second)
        found = change.classes[place]
        assert found is not None
        assert found.value == pytest.approx(first - second)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
    assert change.classes[-1] is None
    assert change.mean is not None
    assert change.mean.value == pytest.approx(np.mean(gains))


def test_the_same_predictions_change_nothing(tmp_path: Path) -> None:
    change = evidence(join(sweep(tmp_path, skill=2.5).root)).change
    assert change is not None
    assert all(one is None or (one.value, one.low, one.high) == (0, 0, 0) for one in change.classes)


def _is_baseline(run: RunDir) -> RunDir:
    return RunDir(run.root.with_name("erm.seed3"))


def _has_no_run(run: RunDir) -> RunDir:
    shutil.rmtree(run.root.with_name("erm.seed3"))
    return run


def _names_none(run: RunDir) -> RunDir:
    (run.root.parent.parent / "results.json").write_text("[]")
    return run


def _is_damaged(run: RunDir) -> RunDir:
    (run.root.with_name("erm.seed3") / "scores.json").write_text("{")
    return run


def _is_of_others(run: RunDir) -> RunDir:
    other = RunDir(run.root.with_name("erm.seed3")).predictions("student", "test")
    found = Predictions.load(other)
    Predictions(found.ids[::-1], found.groups, found.targets, found.logits).save(other)
    return run


def _has_no_predictions(run: RunDir) -> RunDir:
    RunDir(run.root.with_name("erm.seed3")).predictions("student", "test").unlink()
    return run


@pytest.mark.parametrize(("change", "words"), [
    (_is_baseline, "this run is the baseline, `erm`, itself"),
    (_has_no_run, "the baseline `erm` has no run of seed 3"),
    (_names_none, "the sweep has no baseline"),
    (_is_damaged, "the baseline's run cannot be read"),
    (_is_of_others, "not tested on the same images"),
    (_has_no_predictions, "were not kept"),
])  # fmt: skip
def test_why_there_is_no_change(
    tmp_path: Path, change: Callable[[RunDir], RunDir], words: str
) -> None:
    labels = evidence(join(change(sweep(tmp_path)).root))
    assert labels.change is None
    assert words in labels.change_missing
