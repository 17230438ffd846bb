"""A mistake in somebody's own loss is named, before training and without a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.cli import main
from tests import tiny

GOOD = """
from edgekd.losses.base import Loss, mean_logits


class Own(Loss):
    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, student, teachers, batch, clock):
        return (student.logits - self.scale * mean_logits(teachers)).pow(2).mean()
"""
LAST = "return (student.logits - self.scale * mean_logits(teachers)).pow(2).mean()"


@pytest.fixture(autouse=True)
def no_trial_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.doctor._try_export", lambda *_: None)


def doctor(folder: Path, text: str, *overrides: str) -> int:
    """Try a recipe with the loss `own`, whose teacher's weights lie in a file."""
    from edgekd.models.build import build_network
    from edgekd.recipe import ModelSpec

    recipe: dict[str, Any] = tiny.tree(folder, params={"images": 60, "size": 32})
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "own.py").write_text(text, encoding="utf-8")
    network = build_network(ModelSpec.model_validate(recipe["models"]["teacher"]), outputs=4)
    torch.save(network.net.state_dict(), folder / "teacher.pth")
    recipe["models"]["teacher"]["pretrained"] = str(folder / "teacher.pth")
    del recipe["stages"]["teacher"]
    recipe["plugins"] = [str(folder / "plugins")]
    losses = {"ce": {"to": "student"}, "own": {"from": "teacher", "to": "student"}}
    recipe["stages"]["distill"]["losses"] = losses
    return main(["doctor", str(tiny.write(folder, recipe)), *overrides])


def test_a_good_one_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path, GOOD) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".pow(2).mean()", ".mean(1)", "term 'own' (Own) returned (5,), expected a tensor of one"),
        (LAST, "return student.logits.sum().item()", "term 'own' (Own) returned float, expected"),
        (LAST, "student.logits.mean()", "term 'own' (Own) returned NoneType, expected"),
        (LAST, "return student.taps['s3'].mean()", "term 'own' (Own): KeyError: 's3'"),
        ("mean_logits(teachers))", "mean_logits(teachers).amax(1))",
         "term 'own' (Own): RuntimeError: The size of tensor a (4)"),
        ("def forward", "def forwards", "term 'own' (Own): NotImplementedError\n"),
        ("super().__init__()", "pass", "losses.own: 'Own.__init__' does not begin with super()"),
        ("import Loss", "import Lss", "own.py cannot be imported: ImportError: cannot import"),
        ("class Own(Loss)", "class Own", "must define exactly one public Loss class, found 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_term(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    assert old in GOOD
    assert doctor(tmp_path, GOOD.replace(old, new)) == 2
    found = capsys.readouterr().err
    assert message in found
    assert "Traceback" not in found


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("return student.logits.mean() * float('nan')", "term 'own' is nan on random images"),
        ("return student.logits.detach().mean()", "term 'own' has no gradient"),
    ],
)
def test_what_may_be_meant_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], new: str, message: str
) -> None:
    assert doctor(tmp_path, GOOD.replace(LAST, new)) == 0
    assert f"warning: stages.distill: {message}" in capsys.readouterr().err


def test_a_parameter_must_be_keyword_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = "stages.distill.losses.own.params={scale: 2}"
    assert doctor(tmp_path, GOOD, params) == 0
    assert doctor(tmp_path, GOOD.replace("*, scale", "scale"), params) == 2
    assert "params.scale: 'Own.__init__' must take it by keyword only" in capsys.readouterr().err


def test_a_module_beside_the_file_needs_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "edgekd_helper_of_own.py").touch()
    assert doctor(tmp_path, "import edgekd_helper_of_own\n" + GOOD) == 2
    assert f"hint: export PYTHONPATH={tmp_path / 'plugins'}" in capsys.readouterr().err
