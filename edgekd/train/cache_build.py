"""Opening a stage's teacher cache: its key, what is there already, and what has to be computed.

The key of a teacher's files covers everything that can change what it says about a picture, so
that files are shared by all runs for which they are true and by no other. As a second guard a few
entries are computed again before files of an earlier run are believed.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from edgekd import image
from edgekd.data import _randaugment, read
from edgekd.data._wrapped import chain
from edgekd.errors import EdgekdError
from edgekd.host import version
from edgekd.locks import held
from edgekd.log import progress, say, warn
from edgekd.models import neck, taps
from edgekd.models import network as networks
from edgekd.models.network import Network, OnnxTeacher
from edgekd.recipe import Recipe
from edgekd.recipe_load import digest
from edgekd.rundir import RunDir, sha256
from edgekd.stage_keys import file_keys, model_key
from edgekd.train import augment, loader, seeding
from edgekd.train.cache import TeacherCache, View, open_view, rows_of, write_view
from edgekd.train.checkpoint import plain_state
from edgekd.train.distiller import Distiller
from edgekd.train.feeding import augmentations
from edgekd.train.interrupt import Interrupt
from edgekd.train.loader import Feed, Indices, to_device
from edgekd.train.setup import Prepared

FORMAT = 1  # raise it when the files or their meaning change
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "onnxruntime")
CODE = (
    read,
    image,
    augment,
    loader,
    seeding,
    networks,
    neck,
    taps,
)  # ours, from a file to an answer
REPLAYED = 8  # entries that are computed again before a cache is believed
# largest difference of a replayed entry, in parts of the largest value: kernels vary with the batch
TOLERANCE, MIXED_TOLERANCE = 0.01, 0.1


@dataclass(frozen=True)
class _Builder:
    """Computes what one teacher says, on the pictures and with the arithmetic of training."""

    teacher: str
    names: list[str]  # logits, pooled
    distiller: Distiller
    feed: Feed
    fabric: Any
    channels_last: bool
    seed: int

    def answers(self, view: int, plan: list[Indices]) -> Iterator[View]:
        """What the teacher says about each planned batch of a view."""
        device = self.fabric.device
        pin = device.type == "cuda"
        for pixels, _, _ in self.feed.load(plan, seed=self.seed, view=view, pin=pin):
            pictures = to_device(pixels, device, channels_last=self.channels_last)
            with torch.no_grad(), self.fabric.autocast():
                outputs = self.distiller.ask(self.teacher, pictures)
            found = {"logits": outputs.logits, **outputs.taps}
            yield {name: found[name].float().cpu().numpy() for name in self.names}

    def write(self, folder: Path, view: int, note: str) -> None:
        """Compute one view of all training images."""
        keys, batch = self.feed.keys, self.feed.batch
        plan = [keys[start : start + batch] for start in range(0, len(keys), batch)]

        def watched() -> Iterator[View]:
            for answer in self.answers(view, plan):
                yield answer
                bar.advance(task)
                interrupt.check()

        with Interrupt() as interrupt, progress() as bar:
            task = bar.add_task(f"{self.teacher}: {note}", total=len(plan), note="")
            write_view(folder, view, len(keys), watched())

    def agrees(self, found: dict[int, View], tolerance: float) -> bool:
        """Are a few entries of the views what the teacher says now?"""
        generator = np.random.default_rng(seeding.derive(self.seed, "replay"))
        chosen = generator.choice(sorted(found), REPLAYED)
        rows = generator.integers(0, len(self.feed.indices), REPLAYED)
        quick = replace(self, feed=replace(self.feed, workers=0))  # a few images need no workers
        for view in np.unique(chosen):
            own = rows[chosen == view]
            (now,) = quick.answers(int(view), [self.feed.keys[own]])
            for name, values in now.items():
                difference = np.abs(values - found[int(view)][name][own]).max()
                if not difference <= tolerance * max(1.0, float(np.abs(values).max())):
                    return False
        return True


def with_cache(
    recipe: Recipe,
    run: RunDir,
    data: Prepared,
    name: str,
    feed: Feed,
    distiller: Distiller,
    fabric: Any,
    *,
    seed: int,
    fresh: bool = False,
) -> Feed:
    """The feed of stage `name` with its teachers' outputs at hand, if the recipe asks for that.

    What is not there yet (with `fresh`: everything) is computed, view by view; an interrupted
    command goes on with the next view. Raises RecipeError for a term that needs more than is
    cached, KeyboardInterrupt when the user or the system asks to stop.
    """
    spec = recipe.stages[name]
    if spec.cache is None:
        return feed
    views = min(spec.cache.views, spec.epochs)
    teachers = {}
    for teacher, names in distiller.cacheable(f"stages.{name}").items():
        network: Any = distiller.networks[teacher]
        network.to(fabric.device).eval()
        layout = recipe.hardware.channels_last
        builder = _Builder(teacher, names, distiller, feed, fabric, layout, seed)
        key = teacher_key(recipe, data, name, builder)
        is_exact = recipe.hardware.precision == "32-true"
        tolerance = TOLERANCE if is_exact else MIXED_TOLERANCE
        waiting = f"{name}: waiting for another run that caches '{teacher}'"
        with held(run.teacher_cache / f".{key}.lock", waiting=waiting):
            if fresh:
                shutil.rmtree(run.teacher_cache / key, ignore_errors=True)
            teachers[teacher] = _views(builder, run.teacher_cache / key, views, tolerance, name)
    rows = rows_of(feed.keys, max(len(feed.targets), int(feed.keys.max(initial=0)) + 1))
    return replace(feed, cache=TeacherCache(views, rows, teachers))


def _views(builder: _Builder, folder: Path, views: int, tolerance: float, stage: str) -> list[View]:
    """All views of one teacher, from their files; missing ones are computed first."""
    count, wanted = len(builder.feed.indices), range(1, views + 1)
    opened = {view: open_view(folder, view, builder.names, count) for view in wanted}
    found = {view: values for view, values in opened.items() if values is not None}
    if found and not builder.agrees(found, tolerance):
        warn(f"{folder}: '{builder.teacher}' no longer says what was cached; computed again")
        shutil.rmtree(folder)
        found = {}
    for scrap in folder.glob(".*.tmp"):  # of a command that was killed
        scrap.unlink()
    missing = [view for view in wanted if view not in found]
    for view in missing:
        builder.write(folder, view, f"view {view}/{views}")
        written = open_view(folder, view, builder.names, count)
        if written is None:
            raise EdgekdError(f"{folder}: view {view} was written and cannot be read back",
                              hint="look at the disk, or choose another with --out")  # fmt: skip
        found[view] = written
    say(
        f"{stage}: outputs of '{builder.teacher}' for {views} views of {count} images: "
        f"{len(missing)} computed, {views - len(missing)} found in {folder}"
    )
    return [found[view] for view in wanted]


def teacher_key(recipe: Recipe, data: Prepared, name: str, builder: _Builder) -> str:
    """A hash of all that decides what a teacher says about a stage's training pictures.

    Not covered: modules that one's own network or data file imports, and files that a data source
    reads but does not list; the replayed entries are there for those.
    """
    feed, network = builder.feed, builder.distiller.networks[builder.teacher]
    assert isinstance(network, Network)
    spec = recipe.models[builder.teacher].model_copy(update={"pretrained": False, "seed": None})
    return digest(
        {
            "format": FORMAT,
            "model": model_key(spec),
            "weights": _weights(network),
            "mean": network.mean.flatten().tolist(),
            "std": network.std.flatten().tolist(),
            "outputs": data.task.outputs(),
            "kept": builder.names,
            "data": data.key,
            "source": [
                recipe.data.name,
                recipe.data.params,
                *(_code(type(one)) for one in chain(data.source)),
            ],
            **({} if feed.copies is None else {"copies": [feed.copies.seed, _code(_randaugment)]}),
            "plugins": file_keys(recipe.plugins),
            "input": recipe.data.input.model_dump(mode="json"),
            "augment": augmentations(recipe, recipe.stages[name]),
            "seed": builder.seed,
            "images": hashlib.sha256(np.ascontiguousarray(feed.keys).tobytes()).hexdigest(),
            "batch": feed.batch,  # the last bits depend on it
            "precision": recipe.hardware.precision,
            "channels_last": recipe.hardware.channels_last,
            "device": builder.fabric.device.type,
            "versions": {package: version(package) for package in PACKAGES},
            "code": [_code(thing) for thing in CODE],
        }
    )


def _weights(network: Network) -> Any:
    if isinstance(network.net, OnnxTeacher):
        path = network.net.path  # large models keep their weights in a file beside it
        beside = [p for p in path.parent.iterdir() if p.name.startswith(path.name)]
        return {file.name: sha256(file) for file in sorted(beside) if file.is_file()}
    return hashlib.sha256(save(plain_state(network.net))).hexdigest()


def _code(thing: Any) -> str:
    """The hash of the file that defines a module or class."""
    return sha256(Path(inspect.getfile(thing)))
