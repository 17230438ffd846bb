"""What removing hair did, to look at: a table of all images, and a sheet of some of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from edgekd.data._hair import LEAST, HairRemoved, hair_mask, without_hair
from edgekd.data.base import Image
from edgekd.errors import DataError
from edgekd.rundir import replace_file

PREVIEW = "hair.png"
HEIGHT, GAP, LINE = 240, 8, 16  # pixels: of a picture, between pictures, of a line of text


def write_shares(path: Path, source: HairRemoved) -> None:
    """Write `id,share,removed` for all images that were read, the hairiest first."""
    ids = source.ids()
    with replace_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "share", "removed"))
        for index, share in sorted(source.shares.items(), key=lambda item: (-item[1], item[0])):
            writer.writerow((ids[index], f"{share:.6f}", "yes" if share > LEAST else "no"))


def read_shares(path: Path) -> dict[str, float]:
    """How much hair each image had, the hairiest first. Raises DataError for another table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["id"]: float(row["share"]) for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise DataError(
            f"{path}: cannot be read", hint="remove the folder and write the copy anew"
        ) from None


def telling(shares: dict[str, float], count: int) -> list[str]:
    """So many images with the most hair, and as many of those with the least that were changed.

    Of the first one sees whether hair goes; of the others, whether what went was hair.
    """
    names = list(shares)
    changed = [name for name in names if shares[name] > LEAST]
    return list(dict.fromkeys([*names[:count], *changed[-count:]]))


def write_sheet(
    path: Path, source: HairRemoved, names: list[str], shares: dict[str, float]
) -> None:
    """Draw a row per image: before, the pixels taken for hair, after."""
    place = {name: index for index, name in enumerate(source.ids())}
    rows = [_row(source.inner[place[name]].image) for name in names]
    width = max(sum(picture.width + GAP for picture in row) for row in rows) - GAP
    sheet = Pillow.new("RGB", (width, len(rows) * (LINE + HEIGHT + GAP) + LINE), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((0, 0), "before | taken for hair | after", "black")
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = LINE + number * (LINE + HEIGHT + GAP)
        kept = "" if shares[name] > LEAST else f", left as it is (up to {LEAST:.0%})"
        text = f"{name}: {shares[name]:.1%} hair{kept}".encode("ascii", "replace").decode()
        draw.text((0, top), text, "black")
        left = 0
        for picture in row:
            sheet.paste(picture, (left, top + LINE))
            left += picture.width + GAP
    with replace_file(path, "wb") as file:
        sheet.save(file, format="PNG")


def _row(image: Image) -> list[Pillow.Image]:
    mask = np.repeat(hair_mask(image)[:, :, None] * np.uint8(255), 3, axis=2)
    size = (max(1, round(image.shape[1] * HEIGHT / image.shape[0])), HEIGHT)
    pictures = (image, mask, without_hair(image)[0])
    return [Pillow.fromarray(one).resize(size, Pillow.Resampling.BILINEAR) for one in pictures]
