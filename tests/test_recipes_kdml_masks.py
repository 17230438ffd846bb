"""KDML's recipes of segmentation run a batch, on imitations of the data, with small decoders.

What their variants teach whom is in `test_recipes_kdml.py`, with those of classification.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd import catalog, doctor
from edgekd.recipe_load import load, read_tree
from edgekd.train.setup import prepare
from tests.data.test_lgg import make

COMPARISON = "kdml/table10-lgg-comparison"
SMALL = "{encoder_name: resnet18, decoder_channels: [16, 8, 8, 8, 8]}"


@pytest.fixture(scope="module")
def lgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("lgg"), side=32)


def cases() -> list[tuple[str, str | None]]:
    others = [
        (COMPARISON, name) for name in (None, *read_tree(catalog.find(COMPARISON))["variants"])
    ]
    twelve = [None, "ml-v1", "ml-v2", "kd-off-v3", "kdml-v2"]  # each term and each framework
    return [*others, *(("kdml/table4-lgg", name) for name in twelve)]


@pytest.mark.parametrize(("name", "variant"), cases())
def test_a_variant_dry_runs(
    name: str, variant: str | None, lgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = catalog.find(name)
    overrides = [f"data.root={lgg}", "data.split=1-1-1", "data.input={size: 32}", "data.batch=4"]
    for model in load(path, variant=variant).models:
        overrides += [f"models.{model}.pretrained=false", f"models.{model}.args={SMALL}"]
    recipe = load(path, variant=variant, overrides=overrides)
    monkeypatch.setattr(doctor, "_try_export", lambda *_: None)
    free = SimpleNamespace(params=0, macs=0)
    monkeypatch.setattr("edgekd.models.complexity.count", lambda *_: free)
    found = doctor.preflight(recipe, prepare(recipe))
    for key, stage in recipe.stages.items():
        assert set(found["stages"][key]["terms"]) == set(stage.losses)
        assert all(value == value for value in found["stages"][key]["terms"].values())
