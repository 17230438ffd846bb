"""Which mask belongs to which image: by their names below two folders, or beside each other."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.data.folder import PARTS
from edgekd.errors import DataError
from edgekd.image import SUFFIXES, is_picture
from edgekd.log import warn

GROUPS_HINT = "data.params.groups: a CSV file with the columns id and group, one row per image"


@dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    image: Path
    mask: Path
    id: str  # the path without `images` and without the ending
    part: str | None
    folder: str | None  # below `images` and below the part's folder


def find_pairs(root: Path, images: str, masks: str, suffix: str) -> list[Pair]:
    """All images below the folder `images` of the root, or of its parts, with their masks.

    Raises DataError for a folder that is not there or empty, and for the first image without a
    mask or mask without an image, with the number of others.
    """
    pairs = [
        pair
        for base, part in _bases(root, images)
        for pair in _of_base(base, base / images, base / masks, suffix, part)
    ]
    if not pairs:
        raise DataError(f"{root / images}: no images in this folder")
    return pairs


def _bases(root: Path, images: str) -> list[tuple[Path, str | None]]:
    """The folders that hold `images`: the root, or its parts."""
    if (root / images).is_dir():
        return [(root, None)]
    top = sorted(entry for entry in root.iterdir() if entry.is_dir())
    parts = [folder for folder in top if folder.name.lower() in PARTS]
    if not parts:
        found = ", ".join(folder.name for folder in top[:6]) or "no folder"
        raise DataError(
            f"{root}: no folder '{images}', and none of train, val, test; found {found}",
            hint="data.params.images=NAME",
        )
    for folder in parts:
        if not (folder / images).is_dir():
            raise DataError(f"{folder}: no folder '{images}'", hint="data.params.images=NAME")
    return [(folder, PARTS[folder.name.lower()]) for folder in parts]


def _of_base(base: Path, images: Path, masks: Path, suffix: str, part: str | None) -> list[Pair]:
    if not masks.is_dir():
        raise DataError(f"{masks}: no such folder", hint="data.params.masks=NAME")
    if images.resolve() == masks.resolve():
        if not suffix:
            raise DataError(f"{images}: images and masks are in one folder",
                            hint="data.params.suffix=_mask")  # fmt: skip
        both = _pictures(images)
        pictures = {key: path for key, path in both.items() if not key.endswith(suffix)}
        named = {key: path for key, path in both.items() if key.endswith(suffix)}
    else:
        pictures, named = _pictures(images, apart=masks), _pictures(masks, apart=images)
    found: dict[str, Path] = {}
    left: list[Path] = []
    for key, path in named.items():
        plain = key[: len(key) - len(suffix)] if key.endswith(suffix) else None
        if plain in pictures:
            found[plain] = path
        else:
            left.append(path)
    lonely = [key for key in pictures if key not in found]
    if lonely:
        # what makes the names agree, if one thing does
        ends = [key[len(lonely[0]) :] for key in sorted(named) if key.startswith(lonely[0])]
        fits = next((end for end in ends if all(key + end in named for key in pictures)), None)
        raise DataError(
            f"{pictures[lonely[0]]}: there is no mask '{lonely[0]}{suffix}' in {masks} "
            f"({len(lonely)} of {len(pictures)} images have none)",
            hint=f"data.params.suffix={fits}" if fits else None,
        )
    if left:
        raise DataError(f"{left[0]}: there is no image for it in {images} ({len(left)} of "
                        f"{len(named)} masks have none)")  # fmt: skip
    pairs = []
    for key, path in pictures.items():
        *above, _ = key.split("/")
        of, where = part, above
        if part is None and above and above[0].lower() in PARTS:
            of, where = PARTS[above[0].lower()], above[1:]
        id = key if part is None else f"{base.name}/{key}"
        pairs.append(Pair(path, found[key], id, of, "/".join(where) or None))
    return pairs


def _pictures(folder: Path, apart: Path | None = None) -> dict[str, Path]:
    """Pictures below a folder, but not below another one in it, by path without the ending."""
    found: dict[str, Path] = {}
    for where, below, names in os.walk(folder, followlinks=True):
        below[:] = sorted(
            name for name in below if not name.startswith((".", "_")) and Path(where, name) != apart
        )
        for name in sorted(names):
            path = Path(where) / name
            if not is_picture(path):
                continue
            # the name of a DICOM file may end in a number: that is no ending
            plain = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
            key = plain.relative_to(folder).as_posix()
            twin = found.setdefault(key, path)
            if twin != path:
                raise DataError(f"{path}: {twin.name} has the same name, only one can be meant")
    return found


def read_groups(table: Path, ids: Sequence[str]) -> list[str]:
    """The group of each id by a CSV file with the columns id and group.

    An id may have its file's ending. One that is not listed is a group of its own, which is said.
    Raises DataError that names the file and its row.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            missing = [name for name in ("id", "group") if name not in header]
            if missing:
                raise DataError(f"{table}: the header has no column {', '.join(missing)}; found "
                                f"{', '.join(header) or 'nothing'}", hint=GROUPS_HINT)  # fmt: skip
            groups: dict[str, str] = {}
            for line, row in enumerate(reader, 2):
                id, group = (row["id"] or "").strip(), (row["group"] or "").strip()
                if not id or not group:
                    raise DataError(f"{table}, row {line}: id or group is empty", hint=GROUPS_HINT)
                path = Path(id.replace("\\", "/"))
                id = (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()
                if groups.setdefault(id, group) != group:
                    raise DataError(f"{table}, row {line}: {id} is in two groups")
    except FileNotFoundError:
        raise DataError(f"{table}: no such file", hint=GROUPS_HINT) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read: {error}", hint=GROUPS_HINT) from None
    unknown = [id for id in ids if id not in groups]
    if len(unknown) == len(ids):
        raise DataError(f"{table}: lists none of the {len(ids)} images, the first is '{ids[0]}'",
                        hint=GROUPS_HINT)  # fmt: skip
    if unknown:
        warn(f"{table}: {len(unknown)} of {len(ids)} images have no group, the first is "
             f"'{unknown[0]}'; each is one of its own")  # fmt: skip
    return [groups.get(id, id) for id in ids]
