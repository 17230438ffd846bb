"""Small data sets and prepared copies of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgekd.data.base import DataSource
from edgekd.data.prepare import prepare_images
from edgekd.data.prepared import PreparedImages
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.recipe_data import DataSpec
from tests import tiny
from tests.data.test_ham10000 import make as make_ham10000

HINT = "edgekd data prepare RECIPE"


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def draw_folder(root: Path, count: int = 8) -> Path:
    """Pictures of several sizes in two classes."""
    for name in ("benign", "malignant"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            random = np.random.default_rng([number, len(name)])
            shape = (20 + 3 * number, 40 - number, 3)
            pixels = random.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def spec_of(kind: str, folder: Path, **more: Any) -> DataSpec:
    more = {"input": {"size": 16}, "split": "6-2-2", **more}
    if kind == "folder":
        return DataSpec(name="folder", root=str(draw_folder(folder / "images")), **more)
    if kind == "ham10000":
        rows = [f"HAM_{n},ISIC_{n},nv,histo,50,male,ear" for n in range(6)]
        root = make_ham10000(folder / "ham", rows)
        for number, path in enumerate(sorted(root.rglob("*.jpg"))):  # as they are drawn, too plain
            pixels = np.random.default_rng(number).integers(0, 256, (45, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return DataSpec(name="ham10000", root=str(root), **more)
    return DataSpec(name="synthetic", params={"images": 30, "size": 24}, **more)


def prepared(
    folder: Path, kind: str = "folder", **more: Any
) -> tuple[PreparedImages, DataSource, DataSpec]:
    """A copy in `folder/copy`, its source and its recipe's data."""
    spec = spec_of(kind, folder, **more)
    source = open_source(spec)
    split = make_split(source, spec.split, seed=0, limit=spec.limit, verify=False)
    copy, written = prepare_images(folder / "copy", source, split.used(), spec)
    assert written
    return copy, source, spec


def again(folder: Path, source: DataSource, spec: DataSpec) -> bool:
    """Whether preparing once more writes anything."""
    return prepare_images(folder / "copy", source, np.arange(len(source)), spec)[1]


def recipe_of(folder: Path, spec: DataSpec | None = None) -> Path:
    recipe = tiny.tree(folder, params={"images": 60, "size": 24}, input={"size": 16})
    if spec is not None:
        recipe["data"] = spec.model_dump(mode="json")
        recipe["task"] = {"name": "classification"}
    for stage in recipe["stages"].values():
        stage["epochs"] = 1
    return tiny.write(folder, recipe)
