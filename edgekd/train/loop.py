"""The one training loop. It knows stages, batches and terms, and no method's name.

Lightning Fabric brings devices, precision and launching; the step goes through `forward` of one
module. Everything random is seeded from the position (see `seeding.py`), so a stage that is
resumed from `last/` ends, on the CPU, with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekd.log import progress as progress_bar
from edgekd.log import say
from edgekd.losses.base import Batch, Clock
from edgekd.recipe import HardwareSpec, StageSpec
from edgekd.rundir import write_text
from edgekd.tasks.base import Task
from edgekd.train.adopting import keep_adapters
from edgekd.train.checkpoint import (
    Best,
    Progress,
    load_last,
    save_last,
    tidy,
    trim_metrics,
)
from edgekd.train.choose import (
    Scores,
    choice_of,
    choose,
    has_stalled,
    note_plateau,
    note_progress,
)
from edgekd.train.distiller import Distiller
from edgekd.train.interrupt import Interrupt
from edgekd.train.loader import Feed, to_device
from edgekd.train.optim import build_optimizer, clip_gradients, factor, set_rate
from edgekd.train.seeding import derive
from edgekd.train.telling import check_finite, observe, report, warn_of_weights
from edgekd.train.together import Ranks
from edgekd.train.views import with_views

ALONE = Ranks()


def fit(
    fabric: Any,
    name: str,
    key: str,
    spec: StageSpec,
    distiller: Distiller,
    feed: Feed,
    evaluate: Callable[[Sequence[str]], tuple[Scores, Scores]],
    task: Task,
    hardware: HardwareSpec,
    folder: Path,
    seed: int,
) -> dict[str, Best]:
    """Train one stage and leave `<model>.safetensors` and `done.json` in its folder.

    `key` is the stage's hash, which guards what is resumed. `evaluate` gives the validation scores
    of some models, and those of their single classes. Raises TrainingDiverged that names
    the term, KeyboardInterrupt after saving when the user or the system asks to stop.
    """
    choice = choice_of(spec, task)
    ranks = Ranks(fabric.global_rank, fabric.world_size)
    if ranks.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        # from here on the folder no longer holds a finished stage, whatever it held before
        (folder / "done.json").unlink(missing_ok=True)
        tidy(folder)
    fabric.barrier()
    distiller.rank = ranks.own
    optimizer = build_optimizer(spec.optimizer, distiller)
    module, wrapped = fabric.setup(distiller, optimizer)
    resumed = load_last(folder, key, distiller, optimizer)
    state = Progress()
    if resumed is not None:
        state, precision = resumed
        fabric.strategy.precision.load_state_dict(precision)
        where = f"epoch {state.epoch}, step {state.step}"
        say(f"{name}: resuming at {where if state.step else f'epoch {state.epoch}'}")
    metrics = folder / "metrics.jsonl"
    fabric.barrier()  # all have read what is resumed before the first one writes
    if ranks.is_first:
        trim_metrics(metrics, state.epoch - 1)
    run = _Run(fabric, module, distiller, wrapped, optimizer, spec, feed, hardware, seed, ranks)
    everybody = evaluate

    def evaluate(models: Sequence[str]) -> tuple[Scores, Scores]:  # type: ignore[no-redef]
        """By the first process alone: images count once, and the others are told."""
        if ranks.count == 1:
            return everybody(models)
        found = everybody(models) if ranks.is_first else None
        return fabric.broadcast(found)

    def save(current: Progress) -> None:
        precision_state = fabric.strategy.precision.state_dict()
        if fabric.is_global_zero:
            save_last(folder, key, distiller, optimizer, precision_state, current)

    if state.epoch == 1 and state.step == 0:
        observe(distiller, Clock(0, spec.epochs, 0, 0), *evaluate(distiller.to_be_scored()))
    with Interrupt() as interrupt:
        for epoch in range(state.epoch, spec.epochs + 1):
            if has_stalled(state, choice):
                say(f"{name}: nothing got better for {choice.patience} epochs: done")
                break
            run.epoch(name, state, interrupt, save)
            notes = distiller.notes()
            scores, of_classes = evaluate(distiller.trained)
            observe(distiller, Clock(epoch, spec.epochs, 0, 0), scores, of_classes)
            chosen = choose(state, choice, scores, distiller, folder if ranks.is_first else None)
            note_progress(state, choice, scores, distiller.trained)
            note_plateau(state, spec, task, scores)
            row = {**run.row(state, scores, chosen), **({"notes": notes} if notes else {})}
            if ranks.is_first:
                with metrics.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                report(name, row, choice)
            if epoch == 1 and ranks.is_first:
                warn_of_weights(name, distiller.outweighing(row["terms"]))
            state.epoch, state.step, state.sums = epoch + 1, 0, {}
            state.images, state.seconds = 0, 0.0
            save(state)
            interrupt.requested = ranks.agree(interrupt.requested, fabric.device)
            interrupt.check()
    if not ranks.is_first:
        fabric.barrier()
        return state.best
    record = {
        "key": key,
        "epochs": state.epoch - 1,
        "best": {model: asdict(best) for model, best in state.best.items()},
    }
    keep_adapters(distiller, folder)
    write_text(folder / "done.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
    fabric.barrier()
    return state.best


class _Run:
    """One stage's training state that does not change between epochs."""

    def __init__(
        self,
        fabric: Any,
        module: Any,
        distiller: Distiller,
        wrapped: Any,
        optimizer: torch.optim.Optimizer,
        spec: StageSpec,
        feed: Feed,
        hardware: HardwareSpec,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.fabric, self.module, self.distiller = fabric, module, distiller
        self.wrapped, self.optimizer = wrapped, optimizer
        self.spec, self.feed, self.hardware, self.seed = spec, feed, hardware, seed
        self.rate = spec.optimizer.lr
        self.drops = 0  # of the rate

    def epoch(
        self, name: str, state: Progress, interrupt: Interrupt, save: Callable[[Progress], None]
    ) -> None:
        """Train from `state.step` to the end of `state.epoch`, saving now and then."""
        self.drops = state.drops
        feed, spec = self.feed, self.spec
        plan = self.ranks.plan(feed.plan(self.seed, state.epoch))
        pin = self.fabric.device.type == "cuda"
        view = feed.view(state.epoch)
        loading = feed.load(self.ranks.mine(plan[state.step :]), seed=self.seed, view=view, pin=pin)
        self.distiller.train()
        started = saved = time.monotonic()
        before = state.seconds
        with progress_bar() as bar:
            task = bar.add_task(
                f"{name} epoch {state.epoch}/{spec.epochs}",
                total=len(plan),
                completed=state.step,
                note="",
            )
            for step, (pixels, targets, indices) in enumerate(loading, state.step):
                values = self.step(
                    pixels, targets, indices, state.epoch, step, len(plan), len(plan[step])
                )
                for term, value in values.items():
                    state.sums[term] = state.sums.get(term, 0.0) + value * len(plan[step])
                state.images += len(plan[step])
                state.step = step + 1
                interrupt.requested = self.ranks.agree(interrupt.requested, self.fabric.device)
                now = time.monotonic()
                state.seconds = before + now - started
                loss = state.sums["total"] / state.images
                bar.update(task, completed=state.step, note=f"loss {loss:.3f}")
                if (
                    self.is_update(step, len(plan))
                    and state.step < len(plan)
                    and (interrupt.requested or now - saved > self.hardware.checkpoint_every_s)
                ):
                    save(state)
                    saved = now
                    interrupt.check()

    def is_update(self, step: int, steps: int) -> bool:
        """Does the optimizer move at the end of this step?"""
        return (step + 1) % self.spec.accumulate == 0 or step + 1 == steps

    def step(
        self,
        pixels: Tensor,
        targets: Tensor,
        indices: Tensor,
        epoch: int,
        step: int,
        steps: int,
        size: int | None = None,
    ) -> dict[str, float]:
        """One batch forward and back; returns the unweighted terms and their weighted total.

        The images are this process's share of a batch of `size`, by default all of it.
        """
        spec = self.spec
        torch.manual_seed(derive(self.seed, "step", epoch, step, self.fabric.global_rank))
        self.rate = spec.optimizer.lr * factor(
            spec.schedule,
            progress=epoch - 1 + step / steps,
            epochs=spec.epochs,
            lr=spec.optimizer.lr,
            drops=self.drops,
        )
        set_rate(self.optimizer, self.rate)
        device = self.fabric.device
        images = to_device(pixels, device, channels_last=self.hardware.channels_last)
        known = {
            model: {name: value.to(device, non_blocking=True) for name, value in values.items()}
            for model, values in self.feed.known(indices, epoch).items()
        }
        clock = Clock(epoch, spec.epochs, (epoch - 1) * steps + step, spec.epochs * steps)
        batch = Batch(images, targets.to(device, non_blocking=True), known)
        batch = with_views(batch, spec.data)
        shares = self.ranks.shares(size or len(targets)) if self.ranks.count > 1 else ()
        batch.shares = shares
        found: dict[str, float] = {}
        alternates = spec.update == "alternate"
        for only in self.distiller.trained if alternates else (None,):
            values = self.module(batch, clock, only)
            self.fabric.backward(self.distiller.total(values, shares) / spec.accumulate)
            # one transfer for all terms; also where a GPU is waited for
            total = self.distiller.total({key: value.detach() for key, value in values.items()})
            numbers = torch.stack([*(v.detach() for v in values.values()), total])
            *terms, loss = self.ranks.mean(numbers, shares).tolist()
            found.update(zip(values, terms, strict=True))
            found["total"] = found.get("total", 0.0) + loss
            check_finite(found, epoch, step)
            if self.is_update(step, steps):
                self.update(only)
        return found

    def update(self, only: str | None) -> None:
        """Move the weights of the model that has learned, or of all."""
        limit = self.spec.optimizer.clip
        if limit is not None:
            self.fabric.strategy.precision.unscale_gradients(self.optimizer)
            clip_gradients(self.distiller, limit, only)
        self.wrapped.step()
        self.wrapped.zero_grad(set_to_none=True)

    def row(self, state: Progress, scores: Scores, chosen: dict[str, bool]) -> dict[str, Any]:
        """One line of metrics.jsonl."""
        means = {name: value / state.images for name, value in state.sums.items()}
        loss = means.pop("total")
        return {
            "epoch": state.epoch,
            "epochs": self.spec.epochs,
            "step": state.epoch * state.step,
            "lr": self.rate,
            "loss": loss,
            "terms": means,
            "train_images": state.images,
            "seconds": round(state.seconds, 3),
            "val": {
                m: {k: v if math.isfinite(v) else None for k, v in s.items()}
                for m, s in scores.items()
            },
            "best": chosen,
        }
