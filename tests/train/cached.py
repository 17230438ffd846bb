"""A stage with a teacher cache, opened without training anything before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.losses.base import Batch
from edgekd.models.build import build_network, model_seed
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.rundir import RunDir
from edgekd.train import cache_build
from edgekd.train.distiller import Distiller
from edgekd.train.feeding import class_counts, stage_feed
from edgekd.train.hardware import make_fabric
from edgekd.train.loader import Feed, to_device
from edgekd.train.seeding import derive
from edgekd.train.setup import make_distiller, prepare
from tests import tiny

POOLED = """
from torch.nn import functional

from edgekd.losses.base import Loss


class Pooled(Loss):
    taps = ("pooled",)

    def forward(self, student, teachers, batch, clock):
        through = teachers[0].head(teachers[0].taps["pooled"])
        width = student.taps["pooled"].shape[1]
        near = functional.mse_loss(student.taps["pooled"], teachers[0].taps["pooled"][:, :width])
        return near + functional.mse_loss(student.logits, through)
"""


def tree(folder: Path, views: int = 4, images: int = 60) -> dict[str, Any]:
    """The tiny recipe with a cache, and a term that needs pooled features."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "losses").mkdir(exist_ok=True)
    (folder / "losses" / "pooled.py").write_text(POOLED, encoding="utf-8")
    recipe = tiny.tree(folder, params={"images": images, "size": 32})
    recipe["plugins"] = [str(folder / "losses")]
    recipe["stages"]["teacher"]["epochs"] = 1
    distill = recipe["stages"]["distill"]
    distill["cache"] = {"views": views}
    distill["losses"] = {
        "ce": {"to": "student"},
        "kd": {"from": "teacher", "to": "student"},
        "dkd": {"from": "teacher", "to": "student", "params": {"warmup": 1}},
        "pooled": {"from": "teacher", "to": "student"},
    }
    return recipe


class Opened:
    """The second stage of a recipe, its random teacher cached below `runs`."""

    def __init__(
        self, recipe: Recipe, runs: Path, *, fresh: bool = False, nudge: float = 0
    ) -> None:
        self.recipe, self.data = recipe, prepare(recipe)
        spec = recipe.stages["distill"]
        networks = {
            name: build_network(
                recipe.models[name],
                outputs=self.data.task.outputs(),
                seed=model_seed(recipe.seed, name),
            )
            for name in ("student", "teacher")
        }
        if nudge:
            with torch.no_grad():
                networks["teacher"].net.fc.bias[0] += nudge  # type: ignore[union-attr, operator]
        self.live = stage_feed(recipe, self.data, spec, "distill")
        counts = class_counts(self.live, self.data.task.outputs())
        self.distiller: Distiller = make_distiller(
            recipe, "distill", networks, self.data.task, counts
        )
        self.seed = derive(recipe.seed, "distill")
        self.feed: Feed = cache_build.with_cache(
            recipe, RunDir(runs / "x"), self.data, "distill", self.live, self.distiller,
            make_fabric(recipe.hardware), seed=self.seed, fresh=fresh,
        )  # fmt: skip

    def batch(self, indices: np.ndarray, epoch: int) -> Batch:
        """A batch of live training."""
        view = self.feed.view(epoch)
        ((pixels, targets, _),) = self.live.load([indices], seed=self.seed, view=view, pin=False)
        device = torch.device("cpu")
        return Batch(to_device(pixels, device, channels_last=True), targets)


def recipe_of(folder: Path, *overrides: str, **more: Any) -> Recipe:
    return load(tiny.write(folder, tree(folder, **more)), overrides=overrides)
