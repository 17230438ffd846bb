"""How fast do training images come: from raw files, from a prepared copy, from memory?

    python benchmarks/input_pipeline.py --recipe baselines/kd-ham10000 data.root=FOLDER \\
        --images 2000 --upscale 600x450

measures, for 0, 1 and 2 workers, the images per second that the training loader delivers, and the
part of a training epoch in which the loop waits for it: the recipe's student with `ce` alone, no
teacher, since the fastest consumer has the hardest demands. Every round runs every setting once,
in a random order. Results go to `benchmarks/results/input_pipeline.json`, the tables made of them
to `docs/studies/input-pipeline.md`. `--smoke` tries all of it on a few drawn images and keeps
nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from input_sources import JPEG_QUALITY, Enlarged, TimedFeed, pictures
from input_table import COPY, MEMORY, RAW, Cell, render
from study import DOCS, HERE, insert

from edgekd import catalog
from edgekd.data.prepare import prepare_images
from edgekd.data.read import ImageStore
from edgekd.host import host_facts, version
from edgekd.log import say
from edgekd.models.build import build_network, model_seed
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.rundir import write_text
from edgekd.train.augment import build as build_augment
from edgekd.train.feeding import class_counts, stage_feed
from edgekd.train.loader import Feed, Indices
from edgekd.train.loop import fit
from edgekd.train.run import make_fabric
from edgekd.train.setup import Prepared, make_distiller, prepare

RESULTS = HERE / "results" / "input_pipeline.json"
STAGE = "input"
FACTS = ("cpu", "cores_usable", "memory_mb", "is_virtual", "os", "python")
PACKAGES = ("torch", "torchvision", "numpy", "pillow")
SMOKE = ["data.params={images: 120, size: 24, val: 0.07, test: 0.48}", "data.input.size=24",
         "data.batch=8", "hardware.accelerator=cpu", "hardware.threads=1"]  # fmt: skip


def student_alone(recipe: Recipe) -> Recipe:
    """The recipe with one stage: an epoch of its student with cross-entropy."""
    tree = recipe.model_dump(mode="json", by_alias=True)
    student = recipe.export.model
    tree.update(
        stages={STAGE: {"train": [student], "losses": {"ce": {"to": student}}}},
        export={"model": student},
        variants={},
        baseline=None,
        search=None,
    )
    tree["data"]["prepared"] = None
    tree["hardware"]["checkpoint_every_s"] = 1e9
    return Recipe.model_validate(tree)


class Bench:
    """The settings to be measured, and how one of them is run once."""

    def __init__(self, recipe: Recipe, arguments: argparse.Namespace, scratch: Path) -> None:
        self.recipe, self.arguments, self.scratch = recipe, arguments, scratch
        self.data: Prepared = prepare(recipe)
        self.feed = stage_feed(recipe, self.data, recipe.stages[STAGE], STAGE)
        order = np.random.default_rng(0).permutation(self.feed.indices)
        self.indices: Indices = np.sort(order[: arguments.images])
        self.fabric = make_fabric(recipe.hardware)
        self.plain = build_augment([], recipe.data.input.size)
        self.pictures: dict[str, dict[str, Any]] = {}
        self.stores = self._stores()

    def _stores(self) -> dict[str, ImageStore]:
        """One store per source; `budget=0` decodes an image each time that it is asked for."""
        source, spec = self.data.source, self.recipe.data.input
        stores = {RAW: ImageStore(source, spec, budget=0)}
        self.pictures[RAW] = pictures(source, self.indices)
        if self.arguments.upscale:
            size = self.arguments.upscale
            large = Enlarged(source, self.indices, size, self.scratch / "large")
            name = f"{size[0]}x{size[1]}"
            stores[name] = ImageStore(large, spec, budget=0)
            self.pictures[name] = pictures(large, self.indices)
        copy, _ = prepare_images(self.scratch / COPY, source, self.indices, self.recipe.data)
        stores[COPY] = ImageStore(source, spec, prepared=copy)
        stores[MEMORY] = ImageStore(source, spec, self.indices, budget=1 << 62)
        stores[MEMORY].fill()
        return stores

    def cells(self) -> list[Cell]:
        """Every setting: the loader with and without augmentation, and whole epochs."""
        found: list[Cell] = []
        for source in self.stores:
            for workers in self.arguments.workers:
                base = {"source": source, "workers": workers}
                found.append({**base, "kind": "rate", "augment": True})
                found.append({**base, "kind": "rate", "augment": False})
                found.append({**base, "kind": "epoch"})
        return found

    def run(self, cell: Cell, number: int) -> dict[str, float]:
        """Measure one setting once, for as long as a block lasts at least; means per epoch."""
        once: Callable[[TimedFeed, int], None] = self._train
        if cell["kind"] == "rate":
            once = self._deliver
        own = {f.name: getattr(self.feed, f.name) for f in fields(Feed)}
        feed = TimedFeed(**own)
        feed = replace(
            feed,
            store=self.stores[cell["source"]],
            indices=self.indices,
            workers=cell["workers"],
            augment=feed.augment if cell.get("augment", True) else self.plain,
            spent=[],
        )
        while sum(epoch["seconds"] for epoch in feed.spent) < self.arguments.block:
            once(feed, number)
        return {
            name: float(np.mean([epoch[name] for epoch in feed.spent])) for name in feed.spent[0]
        }

    def _deliver(self, feed: TimedFeed, number: int) -> None:
        pin = self.fabric.device.type == "cuda"
        for _ in feed.load(feed.plan(0, number), seed=0, view=number, pin=pin):
            pass

    def _train(self, feed: TimedFeed, number: int) -> None:
        """An epoch in the real loop."""
        student = self.recipe.export.model
        outputs = self.data.task.outputs()
        network = build_network(
            self.recipe.models[student],
            outputs=outputs,
            seed=model_seed(self.recipe.seed, student),
            initial=False,
        )
        counts = class_counts(feed, outputs)
        distiller = make_distiller(self.recipe, STAGE, {student: network}, self.data.task, counts)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            fit(
                self.fabric,
                f"{feed.workers} workers",
                "benchmark",
                self.recipe.stages[STAGE],
                distiller,
                feed,
                lambda models: ({}, {}),
                self.data.task,
                self.recipe.hardware,
                Path(folder),
                number,
            )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; returns the record that `render` reads."""
    import torch

    asked = load(catalog.resolve(arguments.recipe), overrides=arguments.overrides)
    recipe = student_alone(asked)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        bench = Bench(recipe, arguments, Path(folder))
        cells = bench.cells()
        before = host_facts()
        say("warming up")
        for cell in cells:
            if cell["workers"] == 0:  # every file is in the system's cache from here on
                bench.run(cell, 0)
        for cell in cells:
            cell["rounds"] = []
        generator = np.random.default_rng(0)
        for number in range(1, arguments.rounds + 1):
            say(f"round {number}/{arguments.rounds}")
            for place in generator.permutation(len(cells)):
                found = bench.run(cells[place], number)
                cells[place]["rounds"].append({k: round(v, 6) for k, v in found.items()})
        after = host_facts()
        return {
            "benchmark": "input_pipeline",
            "command": _command(arguments),
            "recipe": recipe.name,
            "data": recipe.data.name,
            "images": len(bench.indices),
            "batch": recipe.data.batch,
            "input": recipe.data.input.model_dump(mode="json"),
            "augment": recipe.data.augment,
            "student": recipe.models[recipe.export.model].arch,
            "device": str(bench.fabric.device),
            "threads": torch.get_num_threads(),
            "pictures": bench.pictures,
            "jpeg_quality": JPEG_QUALITY,
            "copy_bytes": (bench.scratch / COPY / "pixels.bin").stat().st_size,
            "rounds": arguments.rounds,
            "block_s": arguments.block,
            "host": {key: before[key] for key in FACTS},
            "load": [before["load"], after["load"]],
            "packages": {name: version(name) for name in PACKAGES},
            "cells": cells,
        }


def _command(arguments: argparse.Namespace) -> str:
    """What to type to measure it again, without this machine's folders."""
    overrides = ["data.root=FOLDER" if o.startswith("data.root=") else o
                 for o in arguments.overrides]  # fmt: skip
    workers = ",".join(map(str, arguments.workers))
    parts = ["--recipe", arguments.recipe, *overrides, "--images", str(arguments.images),
             "--rounds", str(arguments.rounds), "--workers", workers]  # fmt: skip
    if arguments.upscale:
        parts += ["--upscale", "{}x{}".format(*arguments.upscale)]
    return f"python benchmarks/input_pipeline.py {shlex.join(parts)}"


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", default=[])
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--images", type=int, default=2000, help="training images of an epoch")
    parser.add_argument("--upscale", type=_size, metavar="WxH", help="measure this size too")
    parser.add_argument("--workers", type=lambda t: [int(n) for n in t.split(",")], default="0,1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--block", type=float, default=0.1, help="a measurement's least seconds")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--smoke", action="store_true", help="a few drawn images, nothing is kept")
    arguments = parser.parse_intermixed_args()
    if arguments.smoke:
        arguments.overrides = [*SMOKE, *arguments.overrides]
        arguments.images, arguments.rounds, arguments.block = 24, 2, 0.01
        arguments.upscale, arguments.workers = (64, 48), [0, 1]
    if 0 not in arguments.workers:
        parser.error("--workers must hold 0, with which the others are compared")
    record = measure(arguments)
    table = render(record)
    print(table)
    if not arguments.smoke or arguments.results != RESULTS:
        write_text(arguments.results, json.dumps(record, indent=1, sort_keys=True) + "\n")
    if not arguments.smoke and arguments.results == RESULTS:
        document = DOCS / "input-pipeline.md"
        write_text(document, insert(document.read_text(encoding="utf-8"), table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
