"""The recipes of UMKD's tables: every published row, and every variant runs a batch.

The experts and the student are of the recipe's own architectures but thin, without pretrained
weights, on imitations of the data's layout.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd import catalog, doctor, published
from edgekd.losses.base import Batch, Clock
from edgekd.models.build import build_network, model_seed
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.train.feeding import class_counts, stage_feed
from edgekd.train.optim import build_optimizer
from edgekd.train.setup import make_distiller, prepare
from tests.data.grading_layouts import make_aptos2019, make_sicapv2

TABLES = ("umkd/table1-sicapv2", "umkd/table2-aptos2019", "umkd/table3-modules")
THIN = {
    "timm:resnet50": "{channels: [8, 16, 32, 64], stem_width: 8}",
    "timm:resnet18": "{channels: [8, 16, 32, 64], stem_width: 8}",
    "timm:convnext_tiny": "{depths: [1, 1, 1, 1], dims: [8, 16, 32, 64]}",
    "timm:mobilenetv3_large_100": "{}",
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "sicapv2": make_sicapv2(folder / "sicapv2", size=16),
        "aptos2019": make_aptos2019(folder / "aptos2019", size=16),
    }


def entry(name: str) -> catalog.Entry:
    return next(entry for entry in catalog.entries() if entry.name == name)


def all_variants() -> list[tuple[str, str | None]]:
    return [
        (item.name, variant)
        for item in catalog.entries()
        if item.name.startswith("umkd/")
        for variant in (None, *item.variants)
    ]


def small(name: str, variant: str | None, roots: dict[str, Path]) -> Recipe:
    """The recipe with what keeps it from running here replaced."""
    path = catalog.find(name)
    recipe = load(path, variant=variant)
    counts = [10 for _ in recipe.data.subsets["balanced"].counts]
    overrides = [
        f"data.root={roots[recipe.data.name]}",
        "data.input={size: 128, resize: 144}",
        f"data.subsets.balanced.counts={counts}",
        "data.split=6-2-2",
    ]
    for model, spec in recipe.models.items():
        overrides += [f"models.{model}.pretrained=false", f"models.{model}.args={THIN[spec.arch]}"]
    for term, spec in recipe.stages["distill"].losses.items():
        if spec.loss == "common_features":
            overrides.append(f"stages.distill.losses.{term}.params.hidden=16")
    return load(path, variant=variant, overrides=overrides)


@pytest.mark.parametrize(("name", "variant"), all_variants())
def test_every_variant_resolves_and_runs_a_batch(
    name: str, variant: str | None, roots: dict[str, Path]
) -> None:
    recipe = small(name, variant, roots)
    data = prepare(recipe)
    stage = recipe.stages["distill"]
    networks = {
        model: build_network(spec, outputs=data.task.outputs(), seed=model_seed(recipe.seed, model))
        for model, spec in recipe.models.items()
    }
    feed = stage_feed(recipe, data, stage, "distill")
    counts = class_counts(feed, data.task.outputs())
    distiller = make_distiller(recipe, "distill", networks, data.task, counts)
    optimizer = build_optimizer(stage.optimizer, distiller)
    distiller.train()
    images = torch.rand(6, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    values = distiller(Batch(images, torch.arange(6) % 4), Clock(1, 50, 0, 1))
    assert set(values) == set(stage.losses)
    total = distiller.total(values)
    total.backward()
    optimizer.step()
    assert torch.isfinite(total)
    student: nn.Module = networks["student"]
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for m in ("expert_a", "expert_b") for p in networks[m].parameters())


def test_the_whole_recipe_dry_runs(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Experts too, with the heads, taps and adapters of a heterogeneous pair."""
    recipe = small("umkd/heterogeneous", None, roots)
    monkeypatch.setattr(doctor, "_try_export", lambda *_: None)
    found = doctor.preflight(recipe, prepare(recipe))
    assert set(found["stages"]["distill"]["terms"]) == {"ce", "sfa", "cfa", "udd"}
    assert found["stages"]["distill"]["adapter_params"] > 1e5


@pytest.mark.parametrize("name", TABLES)
def test_every_published_row_has_a_variant_or_a_reason(name: str) -> None:
    item = entry(name)
    recipes = [load(item.path, variant=variant) for variant in (None, *item.variants)]
    papers = [recipe.paper for recipe in recipes if recipe.paper is not None]
    table = published.table(papers[0].table)
    have = {(paper.scenario, paper.method) for paper in papers}
    walked = 0
    for row in table.rows:
        covered = (row.scenario, row.method) in have or row.expert or row.reason
        assert covered, f"{table.name}: no variant for {row.method}, {row.scenario}"
        walked += 1
    assert walked >= 10
    rows = {(row.scenario, row.method) for row in table.rows}
    for scenario, method in have:
        assert method is None or (scenario, method) in rows
