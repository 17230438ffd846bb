"""What a training step costs with each setting of `hardware:`: precision, layout, compile.

    python benchmarks/device_settings.py --rounds 9 --threads 1
    python benchmarks/device_settings.py --device cuda

A step is the training loop's own with `ce` on one drawn batch in memory: to the device, forward,
backward, optimizer. For every network the settings take turns within one process, in each round
each for at least BLOCK_MS. Raw times go to `benchmarks/results/device_settings.json`, one record
per device; the tables and the sentences below them, all computed, between the marks of
`docs/studies/device-settings.md`. `--smoke` tries it out and writes nothing but to `--results`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from settings_table import SETTINGS, render  # beside this script
from study import insert

from edgekd.host import host_facts, version
from edgekd.models.build import build_network, model_seed
from edgekd.plugins import load
from edgekd.recipe import HardwareSpec, Recipe
from edgekd.recipe_load import load as load_recipe
from edgekd.rundir import write_text
from edgekd.tasks.base import Task
from edgekd.train.hardware import compiled, make_fabric
from edgekd.train.loader import Feed
from edgekd.train.loop import _Run
from edgekd.train.optim import build_optimizer
from edgekd.train.setup import make_distiller

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "device_settings.json"
DOCUMENT = ROOT / "docs" / "studies" / "device-settings.md"

DENSE, DEPTHWISE = "dense convolutions", "depthwise convolutions"
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {  # name -> family, arch, args
    "timm:resnet18": (DENSE, "timm:resnet18", {}),
    "timm:resnet50": (DENSE, "timm:resnet50", {}),
    "torchvision:shufflenet_v2_x1_0": (DEPTHWISE, "torchvision:shufflenet_v2_x1_0", {}),
    "torchvision:mobilenet_v3_small": (DEPTHWISE, "torchvision:mobilenet_v3_small", {}),
}
QUICKSTART = "quickstart's student"
BLOCK_MS, CLASSES, LEAST_ROUNDS, WARMUP = 100.0, 4, 7, 3


def networks() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """All networks by name, the quickstart's student as its recipe has it."""
    student = load_recipe(ROOT / "recipes" / "quickstart.yaml").models["student"]
    return {**NETWORKS, QUICKSTART: (DENSE, student.arch, student.args)}


def step_of(
    arch: str, args: dict[str, Any], hardware: HardwareSpec, size: int, batch: int
) -> tuple[contextlib.ExitStack, Callable[[], object]]:
    """The training loop's step of one network with one setting, and what ends its use."""
    recipe = Recipe.model_validate(
        {
            "edgekd": 1,
            "name": "device-settings",
            "data": {"name": "synthetic", "input": {"size": size}, "batch": batch},
            "models": {"student": {"arch": arch, "args": args}},
            "stages": {"train": {"train": ["student"], "losses": {"ce": {"to": "student"}}}},
            "hardware": hardware.model_dump(),
        }
    )
    spec = recipe.stages["train"]
    names = tuple(str(number) for number in range(CLASSES))
    task = load("tasks", "classification", Task)(classes=names)
    model = {
        "student": build_network(
            recipe.models["student"], outputs=CLASSES, seed=model_seed(1, "student")
        )
    }
    distiller = make_distiller(recipe, "train", model, task, [1] * CLASSES)
    if hardware.channels_last:
        distiller.to(memory_format=torch.channels_last)
    fabric = make_fabric(hardware)
    stack = contextlib.ExitStack()
    stack.enter_context(compiled(model, "stages.train", hardware))
    optimizer = build_optimizer(spec.optimizer, distiller)
    module, wrapped = fabric.setup(distiller, optimizer)
    feed = Feed({}, np.arange(batch), np.arange(batch), lambda x: x, batch, False, False, 0)
    loop = _Run(fabric, module, distiller, wrapped, optimizer, spec, feed, hardware, seed=1)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    targets, indices = torch.arange(batch) % CLASSES, torch.arange(batch)
    distiller.train()

    def step() -> object:
        return loop.step(pixels, targets, indices, 1, 0, 1)

    return stack, step


def wait(device: str) -> None:
    """Let the device finish, so that the clock sees its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def block(step: Callable[[], object], device: str, least_ms: float) -> tuple[float, int]:
    """Milliseconds per step over at least `least_ms`, and how many steps that were."""
    wait(device)
    count, spent, started = 0, 0.0, time.perf_counter()
    while spent < least_ms:
        step()
        wait(device)
        count += 1
        spent = (time.perf_counter() - started) * 1000
    return spent / count, count


def measure(
    arch: str, args: dict[str, Any], settings: list[str], *, device: str, rounds: int, size: int,
    batch: int, threads: int, least_ms: float,
) -> dict[str, Any]:  # fmt: skip
    """Time all settings of one network, interleaved."""
    first: dict[str, float] = {}
    steps: dict[str, Callable[[], object]] = {}
    times: dict[str, list[float]] = {setting: [] for setting in settings}
    counts: dict[str, list[int]] = {setting: [] for setting in settings}
    with contextlib.ExitStack() as stack:
        for setting in settings:
            hardware = HardwareSpec(accelerator=device, threads=threads, **SETTINGS[setting])
            own, steps[setting] = step_of(arch, args, hardware, size, batch)
            stack.enter_context(own)
            started = time.perf_counter()
            steps[setting]()
            wait(device)
            first[setting] = round(time.perf_counter() - started, 3)
            for _ in range(WARMUP - 1):
                steps[setting]()
        for turn in range(rounds):
            for place in range(len(settings)):  # no setting always comes after the same other
                setting = settings[(place + turn) % len(settings)]
                spent, count = block(steps[setting], device, least_ms)
                times[setting].append(round(spent, 4))
                counts[setting].append(count)
    return {"arch": arch, "args": args, "size": size, "batch": batch, "first_step_s": first,
            "step_ms": times, "steps": counts}  # fmt: skip


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=lambda t: t.split(","), default=None)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--smoke", action="store_true", help="one small network, not compiled")
    parser.add_argument("--results", type=Path, default=None)
    arguments = parser.parse_args(given)
    known = networks()
    names = [QUICKSTART] if arguments.smoke else arguments.networks or list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no such network: {unknown}; known: {', '.join(known)}")
    if arguments.rounds < (2 if arguments.smoke else LEAST_ROUNDS):
        parser.error(f"--rounds: at least {LEAST_ROUNDS}")
    settings = [name for name in SETTINGS if not (arguments.smoke and "compile" in name)]
    size, batch, least = (32, 4, 1.0) if arguments.smoke else (
        arguments.size, arguments.batch, BLOCK_MS)  # fmt: skip
    path = arguments.results or (None if arguments.smoke else RESULTS)
    record: dict[str, Any] = {"name": "device_settings", "devices": {}}
    if path is not None and path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
    found = record["devices"].setdefault(arguments.device, {"networks": {}})
    found |= {
        "command": f"python benchmarks/device_settings.py --device {arguments.device} "
        f"--rounds {arguments.rounds} --threads {arguments.threads} --size {arguments.size} "
        f"--batch {arguments.batch}",
        "rounds": arguments.rounds, "threads": arguments.threads, "block_ms": least,
        "gpu": torch.cuda.get_device_name() if arguments.device == "cuda" else None,
        "host": host_facts(),
        "packages": {name: version(name) for name in ("torch", "torchvision", "timm")},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as cold:  # what an earlier run compiled would be free
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cold
        for name in names:
            family, arch, args = known[name]
            row = measure(
                arch, args, settings, device=arguments.device, rounds=arguments.rounds,
                size=size, batch=batch, threads=arguments.threads, least_ms=least,
            )  # fmt: skip
            found["networks"][name] = {"family": family, **row}
            gc.collect()
            if path is not None:
                write_text(path, json.dumps(record, indent=1) + "\n")
    table = render(record)
    if path == RESULTS:
        write_text(DOCUMENT, insert(DOCUMENT.read_text(encoding="utf-8"), table))
    print(table)


if __name__ == "__main__":
    main()
