"""Optimizers and learning rates. The rate is a function of the step; what plateaus it has seen is
kept with the progress."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from edgekd.errors import RecipeError, did_you_mean
from edgekd.models.network import Network
from edgekd.models.taps import head_parameters
from edgekd.recipe import OptimizerSpec, ScheduleSpec
from edgekd.train.distiller import Distiller


def build_optimizer(spec: OptimizerSpec, distiller: Distiller) -> torch.optim.Optimizer:
    """One optimizer for the stage; `scale` multiplies the rate of heads and adapters, and a term's
    `rates` multiply that of parts of its adapters once more.

    Raises RecipeError for a part that a term does not have.
    """
    heads: list[nn.Parameter] = []
    for name in distiller.trained:
        network = distiller.networks[name]
        assert isinstance(network, Network)
        heads += head_parameters(network)
    head_ids = {id(parameter) for parameter in heads}
    by_scale: dict[float, list[nn.Parameter]] = {}
    for name in distiller.trained:
        for parameter in distiller.networks[name].parameters():
            scale = spec.scale.get("heads", 1.0) if id(parameter) in head_ids else 1.0
            by_scale.setdefault(scale, []).append(parameter)
    for key, term in distiller.specs.items():
        parts: set[str] = set()
        for name, parameter in distiller.adapters_of(key):
            part = name.partition(".")[0]
            parts.add(part)
            scale = spec.scale.get("adapters", 1.0) * term.rates.get(part, 1.0)
            by_scale.setdefault(scale, []).append(parameter)
        for part in term.rates:
            if part not in parts:
                raise RecipeError(
                    f"{distiller.where}.losses.{key}.rates: this term has no adapter '{part}'",
                    hint=did_you_mean(part, parts) if parts else "it has no adapters",
                )
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": spec.lr * scale, "scale": scale}
        for scale, parameters in by_scale.items()
    ]
    if spec.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            nesterov=spec.nesterov,
        )
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.name]
    return cls(groups, lr=spec.lr, weight_decay=spec.weight_decay)


def factor(
    schedule: ScheduleSpec, *, progress: float, epochs: int, lr: float, drops: int = 0
) -> float:
    """The learning rate as a multiple of `lr`; `progress` is the number of epochs done.

    `drops` says how often a plateau was reached (choose.note_plateau).
    """
    if progress < schedule.warmup:
        first = schedule.warmup_from
        return max(first + (1.0 - first) * progress / schedule.warmup, 1e-3)
    if schedule.name == "plateau":
        return max(schedule.gamma**drops, schedule.floor / lr)
    if schedule.name == "step" and schedule.milestones:
        return schedule.gamma ** sum(progress >= epoch for epoch in schedule.milestones)
    if schedule.name == "step":
        return schedule.gamma ** (int(progress) // schedule.every)
    left = max(epochs - schedule.warmup, 1e-9)
    position = min((progress - schedule.warmup) / left, 1.0)
    if schedule.name == "cosine":
        floor = schedule.floor / lr
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * position))
    if schedule.name == "onecycle":  # up for 30 %, down to 1/1000 by cosine
        if position < 0.3:
            return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * position / 0.3))
        down = (position - 0.3) / 0.7
        return 1e-3 + (1.0 - 1e-3) * 0.5 * (1.0 + math.cos(math.pi * down))
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its scaled rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def clip_gradients(distiller: Distiller, limit: float, only: str | None = None) -> None:
    """Clip the gradient norm of each trained model by itself (gradients must be unscaled)."""
    for name in distiller.trained if only is None else [only]:
        nn.utils.clip_grad_norm_(distiller.networks[name].parameters(), limit)
