"""What `edgekd data check` finds in masks."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from edgekd.cli import main
from edgekd.data.base import Mask
from edgekd.data.check import CheckReport, check
from edgekd.data.splits import make_split
from edgekd.data.synthetic import Synthetic
from edgekd.errors import DataError
from tests.data.plain import Plain
from tests.data.test_check import PARTS, lesions, run


class Masked(Plain):
    """Six lesions of 128 x 128 with the masks given; None cannot be read."""

    has_masks = True

    def __init__(self, masks: Sequence[Mask | None], classes: tuple[str, ...]) -> None:
        super().__init__([0, 1] * 3, parts=PARTS, images=lesions(), groups=list("aabcde"))
        self.masks = masks
        self.classes = classes

    def kinds(self) -> Sequence[str]:
        return ("c0", "c1")

    def mask(self, index: int) -> Mask:
        found = self.masks[index]
        if found is None:
            raise DataError(f"{index}_mask.png: damaged")
        return found


def square(side: int = 64, value: int = 1, size: int = 128) -> Mask:
    mask: npt.NDArray[np.uint8] = np.zeros((size, size), dtype=np.uint8)
    mask[:side, :side] = value
    return mask


def of(masks: Sequence[Mask | None], *classes: str) -> CheckReport:
    source = Masked(masks, classes or ("lesion",))
    return check(source, make_split(source, "official", seed=0, verify=False))


def test_sound_masks_are_ok_and_their_share_is_said() -> None:
    report = of([square()] * 6)
    assert report.verdict == "ok"
    assert report.notes == ["masks: 25.00% lesion of all pixels"]
    assert report.masks is not None
    assert (report.masks.masks, report.masks.empty, report.masks.unknown) == (6, 0, 0)
    assert report.masks.shares == {"background": 0.75, "lesion": 0.25}
    assert json.loads(json.dumps(report.as_json()))["masks"]["shares"]["lesion"] == 0.25
    assert list(report.counts["train"]) == ["c0", "c1"]


def test_data_without_masks_says_nothing_of_them() -> None:
    assert run(lesions()).masks is None


def test_broken_masks_and_masks_of_other_pictures_are_a_problem() -> None:
    wide = np.ones((64, 128), dtype=np.uint8)
    report = of([square(), None, square(192, size=384), wide, square(), None])
    assert report.verdict == "problems"
    assert report.problems == ["3 masks cannot be used; the first: 1_mask.png: damaged"]
    assert report.masks is not None
    assert report.masks.masks == 3
    assert report.masks.broken[1] == (
        "i3: 128x64 pixels, its image has 128x128: they are not of one picture"
    )
    assert report.masks.shares["lesion"] == 0.25  # the larger one counts like the others


def test_empty_masks_are_counted() -> None:
    report = of([square(), square(), square(0), square(), square(0), square()])
    assert report.verdict == "ok"
    assert "2 of 6 masks show no lesion" in report.notes


def test_a_class_that_training_never_sees_is_a_problem_and_elsewhere_a_note() -> None:
    report = of([square(0), square(0), square(), square(), square(0), square(0)])
    assert report.problems == ["no mask of the train part shows 'lesion'"]
    assert "no mask of the test part shows 'lesion'" in report.notes


def test_several_classes_have_their_shares_and_unknown_pixels_are_left_out() -> None:
    masks = [square(value=2) for _ in range(6)]
    for mask in masks:
        mask[64:, 64:] = 255
    masks[2][:] = 1
    report = of(masks, "tissue", "benign", "tumour")
    assert report.masks is not None
    assert report.masks.unknown == pytest.approx(0.25 * 5 / 6)
    assert report.masks.shares == pytest.approx({"tissue": 10 / 19, "benign": 4 / 19,
                                                 "tumour": 5 / 19})  # fmt: skip
    assert report.problems == ["no mask of the train part shows 'benign'"]
    assert "1 of 6 masks show one class only" in report.notes
    assert "20.83% of the masks' pixels are unknown (255)" in report.notes


def test_a_number_of_no_class_is_a_problem() -> None:
    report = of([square(), square(value=3), *[square()] * 4])
    assert report.problems == [
        "1 masks cannot be used; the first: i1: value 3 in the mask, expected 0 to 1"
    ]


def test_drawn_masks_are_sound() -> None:
    source = Synthetic(images=60, size=32, masks=True, empty=0.3)
    report = check(source, make_split(source, "official", seed=0))
    assert report.verdict == "ok"
    assert report.masks is not None
    assert 0 < report.masks.empty < 30
    assert report.classes == ["none", "mild", "moderate", "severe"]


def test_the_command_says_it(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "edgekd: 1\nname: m\ntask: {name: segmentation}\n"
        "data: {name: synthetic, params: {images: 60, size: 32, masks: true}, split: official,"
        " input: {size: 32}}\n"
        "models: {student: {arch: 'smp:unet'}}\n"
        "stages: {train: {train: [student], losses: {focal_dice: {to: student}}, epochs: 1}}\n"
    )
    code = main(["data", "check", str(recipe)])
    out = capsys.readouterr()
    assert code == 0, out.err
    assert "% lesion of all pixels" in out.out
