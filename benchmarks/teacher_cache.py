"""What a training step costs: teacher live, teacher from the cache, no teacher.

    python benchmarks/teacher_cache.py --rounds 9 --threads 1

A step is the training loop's own: fetch the images from memory, augment them, look up or run the
teacher, forward, backward, optimizer. The three arms take turns in one process, in every round
each for at least BLOCK_MS; ratios are of medians over rounds, their intervals from a bootstrap
that draws whole rounds. Raw times go to `benchmarks/results/teacher_cache.json`, the table made
of them between the marks of `docs/studies/teacher-cache.md`. `--smoke` tries it out on tiny
networks and writes nothing but to `--results`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study import insert  # this folder is where Python looks when a script of it runs

from edgekd.host import host_facts, version
from edgekd.models.build import build_network, model_seed
from edgekd.recipe import Recipe
from edgekd.rundir import RunDir, write_text
from edgekd.stats import percentile_interval
from edgekd.train.cache_build import with_cache
from edgekd.train.feeding import class_counts, stage_feed
from edgekd.train.hardware import make_fabric
from edgekd.train.loop import _Run
from edgekd.train.optim import build_optimizer
from edgekd.train.seeding import derive
from edgekd.train.setup import Prepared, make_distiller, prepare

RESULTS = Path(__file__).parent / "results" / "teacher_cache.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "studies" / "teacher-cache.md"

PAIRS = {
    "res2net101-shufflenet": ("timm:res2net101_26w_4s", "torchvision:shufflenet_v2_x1_0"),
    "resnet50-resnet18": ("timm:resnet50", "timm:resnet18"),
}
SMOKE = {"smoke": ("timm:resnet10t", "torchvision:shufflenet_v2_x0_5")}
ARMS = ("live", "cached", "alone")
BOUND = 1.10  # the aim: a cached step costs at most this many student-only steps
BLOCK_MS, BATCH, VIEWS, IMAGES, WARMUP = 100.0, 8, 4, 96, 2
AUGMENT = ["hflip", "vflip", "rotate90"]  # little, so that the arms share as little as possible
RESAMPLES = 10_000


def recipe_of(arm: str, teacher: str, student: str, size: int, images: int) -> Recipe:
    """One arm as a recipe: drawn images, random weights, `ce` and (with a teacher) `kd`."""
    losses: dict[str, Any] = {"ce": {"to": "student", "weight": 0.1}}
    stage: dict[str, Any] = {"train": ["student"], "losses": losses, "epochs": 1000}
    if arm != "alone":
        stage["frozen"] = ["teacher"]
        losses["kd"] = {"from": "teacher", "to": "student", "weight": 0.9}
    if arm == "cached":
        stage["cache"] = {"views": VIEWS}
    return Recipe.model_validate(
        {
            "edgekd": 1,
            "name": f"teacher-cache-{arm}",
            "task": {"name": "grading"},
            "data": {
                "name": "synthetic",
                "params": {"images": images, "size": size},
                "split": "official",
                "input": {"size": size},
                "batch": BATCH,
                "augment": AUGMENT,
            },
            "models": {"teacher": {"arch": teacher}, "student": {"arch": student}},
            "stages": {"distill": stage},
            "hardware": {"accelerator": "cpu"},
        }
    )


def arm_of(recipe: Recipe, data: Prepared, folder: Path) -> tuple[Iterator[int], float]:
    """Endless training steps of one arm, and the seconds that building its cache took."""
    spec = recipe.stages["distill"]
    outputs = data.task.outputs()
    networks = {
        name: build_network(
            recipe.models[name], outputs=outputs, seed=model_seed(recipe.seed, name)
        )
        for name in (*spec.train, *spec.frozen)
    }
    feed = stage_feed(recipe, data, spec, "distill")
    distiller = make_distiller(recipe, "distill", networks, data.task, class_counts(feed, outputs))
    distiller.to(memory_format=torch.channels_last)
    fabric = make_fabric(recipe.hardware)
    seed = derive(recipe.seed, "distill")
    run = RunDir(folder / recipe.name)
    started = time.perf_counter()
    feed = with_cache(recipe, run, data, "distill", feed, distiller, fabric, seed=seed)
    seconds = time.perf_counter() - started
    optimizer = build_optimizer(spec.optimizer, distiller)
    module, wrapped = fabric.setup(distiller, optimizer)
    loop = _Run(fabric, module, distiller, wrapped, optimizer, spec, feed, recipe.hardware, seed)

    def steps() -> Iterator[int]:
        distiller.train()
        for epoch in range(1, spec.epochs + 1):
            plan = [piece for piece in feed.plan(seed, epoch) if len(piece) == BATCH]
            loading = feed.load(plan, seed=seed, view=feed.view(epoch), pin=False)
            for step, (pixels, targets, indices) in enumerate(loading):
                loop.step(pixels, targets, indices, epoch, step, len(plan))
                yield step

    return steps(), seconds


def block(steps: Iterator[int], least_ms: float) -> tuple[float, int]:
    """Milliseconds per step over at least `least_ms`, and how many steps that were."""
    count, started, spent = 0, time.perf_counter(), 0.0
    while spent < least_ms or count == 0:
        next(steps)
        count += 1
        spent = (time.perf_counter() - started) * 1000
    return spent / count, count


def measure(
    teacher: str, student: str, *, rounds: int, size: int, images: int, least_ms: float
) -> dict[str, Any]:
    """Time the three arms of one pair, interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        recipes = {arm: recipe_of(arm, teacher, student, size, images) for arm in ARMS}
        data = prepare(recipes["live"])
        data.store.fill()
        arms, seconds = {}, {}
        for arm, recipe in recipes.items():
            arms[arm], seconds[arm] = arm_of(recipe, data, Path(folder))
        for steps in arms.values():
            for _ in range(WARMUP):
                next(steps)
        times: dict[str, list[float]] = {arm: [] for arm in ARMS}
        counts: dict[str, list[int]] = {arm: [] for arm in ARMS}
        for turn in range(rounds):
            for place in range(len(ARMS)):  # no arm always comes after the same other one
                arm = ARMS[(place + turn) % len(ARMS)]
                spent, count = block(arms[arm], least_ms)
                times[arm].append(round(spent, 4))
                counts[arm].append(count)
        views = VIEWS * len(data.split.train)
    return {
        "teacher": teacher, "student": student, "rounds": rounds, "size": size, "batch": BATCH,
        "views": VIEWS, "images": len(data.split.train), "augment": AUGMENT, "block_ms": least_ms,
        "threads": torch.get_num_threads(), "build_ms_per_image": seconds["cached"] * 1000 / views,
        "step_ms": times, "steps": counts, "host": host_facts(),
        "packages": {name: version(name) for name in ("torch", "torchvision", "timm")},
    }  # fmt: skip


def ratio(times: dict[str, list[float]], arm: str) -> tuple[float, float, float]:
    """Median step of `arm` over that of the student alone, and its 95 % bootstrap interval."""
    ours, alone = np.array(times[arm]), np.array(times["alone"])
    drawn = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    ratios = np.median(ours[drawn], axis=1) / np.median(alone[drawn], axis=1)
    low, high = percentile_interval(ratios)
    return float(np.median(ours) / np.median(alone)), low, high


def verdict(low: float, high: float) -> str:
    """Where the interval of the ratio lies: does it include the aim, or lie below it?"""
    if high < BOUND:
        return f"yes: interval below {BOUND:.2f}"
    return f"yes: interval includes {BOUND:.2f}" if low <= BOUND else f"no: above {BOUND:.2f}"


def render(record: dict[str, Any]) -> str:
    """The measurements as markdown: one row per pair."""
    lines = []
    rows = [
        "| teacher | student | live ms | cached ms | alone ms | live / alone | cached / alone "
        f"| within {BOUND:.2f} × alone? | building, ms per image and view |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for name, pair in sorted(record["pairs"].items()):
        host, times = pair["host"], pair["step_ms"]
        lines.append(
            f"- `{pair['command']}`: `{name}` on {host['cpu']}, {pair['threads']} of "
            f"{host['cores_usable']} usable cores, torch {pair['packages']['torch']}; "
            f"{pair['size']} px, batch {pair['batch']}, {pair['views']} views of "
            f"{pair['images']} images, augmentation {', '.join(pair['augment'])}; "
            f"{pair['rounds']} rounds of at least {pair['block_ms']:.0f} ms per arm"
        )
        medians = " | ".join(f"{np.median(times[arm]):.1f}" for arm in ARMS)
        live, cached = ratio(times, "live"), ratio(times, "cached")
        rows.append(
            f"| {pair['teacher']} | {pair['student']} | {medians} | {_interval(live)} | "
            f"{_interval(cached)} | {verdict(*cached[1:])} | {pair['build_ms_per_image']:.1f} |"
        )
    return "\n".join([*lines, "", *rows]) + "\n"


def _interval(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=lambda t: t.split(","), default=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="tiny networks, a second of time")
    parser.add_argument("--results", type=Path, default=None)
    arguments = parser.parse_args(given)
    known = SMOKE if arguments.smoke else PAIRS
    names = list(SMOKE) if arguments.smoke else arguments.pairs
    unknown = set(names) - set(known)
    if unknown or arguments.rounds < (2 if arguments.smoke else 7):
        parser.error(f"no such pair: {sorted(unknown)}" if unknown else "--rounds: at least 7")
    path = arguments.results or (None if arguments.smoke else RESULTS)
    record: dict[str, Any] = {"name": "teacher_cache", "pairs": {}}
    if path is not None and path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    size, images, least = (32, 30, 1.0) if arguments.smoke else (224, IMAGES, BLOCK_MS)
    try:
        for name in names:
            pair = measure(
                *known[name], rounds=arguments.rounds, size=size, images=images, least_ms=least
            )
            pair["command"] = (
                f"python benchmarks/teacher_cache.py --pairs {name} --rounds {arguments.rounds} "
                f"--threads {arguments.threads}"
            )
            record["pairs"][name] = pair
            if path is not None:
                write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    finally:
        torch.set_num_threads(before)
    table = render(record)
    if path == RESULTS:
        write_text(DOCUMENT, insert(DOCUMENT.read_text(encoding="utf-8"), table))
    print(table)


if __name__ == "__main__":
    main()
