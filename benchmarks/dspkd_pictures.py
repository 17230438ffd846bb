"""What of DSP-KD shows photographs: copies of rare classes, hair, and where the mask lies.

The images of HAM10000 are CC BY-NC 4.0, so none of these drawings may lie in the repository:
`python benchmarks/dspkd.py SWEEP --figures DIR` writes them somewhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from edgekd.data._hair import HairRemoved
from edgekd.data._hair_sheet import telling, write_sheet
from edgekd.data._randaugment import drawn, transformed
from edgekd.data.base import DataSource, Image
from edgekd.data.read import open_source
from edgekd.errors import DataError, EdgekdError
from edgekd.image import to_input, to_square
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.rundir import RunDir, replace_file
from edgekd.tasks.classification import Classification

ROOT = Path(__file__).resolve().parents[1]
SIDE, GAP, LINE = 144, 6, 14  # pixels: of a picture, between pictures, of a line of text
COPIES, HAIRY, LOOKED_THROUGH = 5, 4, 400
NOTICE = "CC BY-NC 4.0: Tschandl et al., Scientific Data 5:180161 (2018); altered"


def write(root: Path, folder: Path) -> Iterator[Path]:
    """Write the drawings of a run into a folder; yields the files.

    Raises DataError for a folder inside the repository. Without OpenCV there is none of hair.
    """
    if folder.resolve().is_relative_to(ROOT):
        raise DataError(f"{folder} is inside of the repository, where these images may not be",
                        hint="--figures /somewhere/else")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    run = RunDir(root)
    recipe = load(run.recipe)
    source = open_source(recipe.data)
    shown = one_of_each(source)
    yield sheet(folder / "augmented.png", copies(source, shown, recipe.seed))
    yield sheet(folder / "hf-mask.png", masks(run, recipe, source, shown))
    try:
        yield hair(folder / "hair.png", source)
    except EdgekdError as error:
        print(f"hair.png: {error.message}")


def one_of_each(source: DataSource) -> list[int]:
    """The first image of every class."""
    targets = source.targets()
    return [int(np.flatnonzero(targets == label)[0]) for label in np.unique(targets)]


def copies(source: DataSource, shown: list[int], seed: int) -> list[list[tuple[str, Image]]]:
    """For each image it and its first copies, with the operations that made them."""
    rows = []
    for index in shown:
        sample = source[index]
        row = [(f"{source.classes[sample.target]}: {sample.id}", sample.image)]
        for copy in range(1, COPIES + 1):
            names = ", ".join(name for name, _ in drawn(seed, index, copy))
            row.append((names, transformed(sample.image, seed, index, copy)))
        rows.append(row)
    return rows


def masks(
    run: RunDir, recipe: Recipe, source: DataSource, shown: list[int]
) -> list[list[tuple[str, Image]]]:
    """For each image it, the teacher's attention on it, and what of it the mask hides."""
    import torch
    from torch.nn import functional

    from edgekd.losses.hf_mgd import LEVELS, hf_attention, hf_mask
    from edgekd.models.assemble import assemble
    from edgekd.models.taps import Recorder
    from edgekd.models.weights import load_weights

    network = assemble(recipe, "teacher", Classification(classes=source.classes))
    load_weights(network, run.weights("teacher"))
    recorder = Recorder(network, {*LEVELS, "last"}, "teacher")
    rows = []
    for index in shown:
        sample = source[index]
        square = to_square(sample.image, recipe.data.input)
        recorder.start()
        with torch.no_grad():
            network.eval()(torch.from_numpy(to_input(square[None])))
        taps = recorder.take()
        levels, size = [taps[level] for level in LEVELS], taps["last"].shape[-2:]
        looks, keeps = hf_attention(levels, size), hf_mask(levels, size)
        smooth = functional.interpolate(looks, size=square.shape[:2], mode="bilinear")[0, 0]
        hard = functional.interpolate(keeps, size=square.shape[:2])[0, 0]
        rows.append([
            (f"{source.classes[sample.target]}: {sample.id}", square),
            ("attention", tinted(square, smooth.numpy())),
            ("hidden", tinted(square, 1 - hard.numpy())),
        ])  # fmt: skip
    return rows


def tinted(image: Image, share: Any) -> Image:
    """An image with red over it, by a share (H, W) from 0 to 1 of at most two thirds."""
    part = 2 / 3 * np.asarray(share)[:, :, None]
    return np.asarray((1 - part) * image + part * np.array([220, 30, 30]), dtype=np.uint8)


def hair(path: Path, source: DataSource) -> Path:
    """Images with much hair and with little, before and after. Raises MissingOnHost without cv2."""
    clean = HairRemoved(source)
    step = max(1, len(source) // LOOKED_THROUGH)
    for index in range(0, len(source), step):
        _ = clean[index]
    ids = source.ids()
    found = sorted(clean.shares.items(), key=lambda item: -item[1])
    shares = {ids[index]: share for index, share in found}
    write_sheet(path, clean, telling(shares, HAIRY), shares)
    return path


def sheet(path: Path, rows: list[list[tuple[str, Image]]]) -> Path:
    """Draw rows of pictures with a line of text above each."""
    wide = max(map(len, rows)) * (SIDE + GAP)
    whole = Pillow.new("RGB", (wide, len(rows) * (SIDE + LINE + GAP) + LINE), "white")
    draw = ImageDraw.Draw(whole)
    for number, row in enumerate(rows):
        for place, (text, image) in enumerate(row):
            left, top = place * (SIDE + GAP), number * (SIDE + LINE + GAP)
            draw.text((left, top), text.encode("ascii", "replace").decode()[:24], "black")
            whole.paste(Pillow.fromarray(image).resize((SIDE, SIDE)), (left, top + LINE))
    draw.text((0, whole.height - LINE), NOTICE, "black")
    with replace_file(path, "wb") as file:
        whole.save(file, format="PNG")
    return path
