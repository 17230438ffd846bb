"""Writing a prepared copy: whole or not at all, and only where nothing else would be lost."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from edgekd.data._hair import hairless
from edgekd.data._hair_sheet import PREVIEW, write_shares
from edgekd.data._wrapped import chain
from edgekd.data.base import DataSource, Image
from edgekd.data.prepared import (
    HAIR,
    HINT,
    INDEX,
    PIXELS,
    RECORD,
    Facts,
    Indices,
    PreparedImages,
    changed,
    check_changed,
    hash_of_ids,
    open_prepared,
    read_facts,
    read_resized,
    side_of,
    stale,
)
from edgekd.errors import DataError, MissingOnHost
from edgekd.locks import has_locks, held, try_lock
from edgekd.log import progress, say
from edgekd.recipe_data import DataSpec
from edgekd.recipe_load import digest
from edgekd.results import dump_json
from edgekd.rundir import replace_folder, sha256, write_text

OWNED = ".writing"  # locked by the process that writes the folder


def default_folder(spec: DataSpec, change: str = "") -> Path:
    """Where a recipe's copy goes unless it says so: `prepared/<data.name>-<side>[-<change>]`."""
    name = "".join(sign if sign.isalnum() or sign in "_.-" else "-" for sign in spec.name)
    parts = [name, str(side_of(spec.input)), *change.split()]
    return Path("prepared") / "-".join(parts)


def prepare_images(
    path: Path, source: DataSource, indices: Indices, spec: DataSpec
) -> tuple[PreparedImages, bool]:
    """Make `path` the copy of these images of `source`; returns it, and whether it was written.

    A whole and current copy is left as it is; an old one is replaced once the new one is complete.
    edgekd's own sources are decoded in `data.workers` threads, others in one: nobody asked them to
    be safe for more. Raises DataError for an image that cannot be read (it is named) and for a
    folder that holds something else, MissingOnHost if the disk has not the space.
    """
    indices = np.unique(indices)
    _check_ours(path, source, spec)
    if path.is_dir() and any(path.iterdir()):
        try:
            copy = open_prepared(path, source, spec)
            missing = sum(index not in copy for index in indices.tolist())
            if missing:
                raise stale(path, f"{missing} of {len(indices)} images are not in it")
            copy.verify()
            return copy, False
        except DataError as error:
            say(f"{error.message}; it is written anew")
    place = path.resolve()  # behind a link, say on another disk
    _remove_leftovers(place)
    first = read_resized(source, int(indices[0]), spec.input)
    _check_space(place, first.nbytes * len(indices))
    with replace_folder(place) as folder, _owned(folder):
        _write(folder, source, indices, spec)
    return PreparedImages(path), True


def _write(folder: Path, source: DataSource, indices: Indices, spec: DataSpec) -> None:
    fingerprint = source.fingerprint()
    index = np.empty((len(indices), 4), dtype=np.int64)
    digest_of_pixels = hashlib.sha256()
    offset = 0
    with (folder / PIXELS).open("wb") as file, progress() as bar:
        task = bar.add_task("preparing images", total=len(indices), note="")
        with closing(_read_all(source, indices, spec)) as images:
            for place, image in enumerate(images):
                index[place] = (indices[place], offset, *image.shape[:2])
                block = image.tobytes()
                file.write(block)
                digest_of_pixels.update(block)
                offset += len(block)
                bar.update(task, advance=1, note=f"{offset / 1e6:.0f} MB")
        file.flush()
        os.fsync(file.fileno())
    with (folder / INDEX).open("wb") as file:
        np.save(file, index)
        file.flush()
        os.fsync(file.fileno())
    if source.fingerprint() != fingerprint:
        raise DataError("the data set changed while it was copied", hint=HINT)
    step = hairless(source)
    if step is not None:
        write_shares(folder / HAIR, step)
    facts = Facts(
        data=spec.name,
        root=_root(spec),
        params=digest(spec.params),
        fingerprint=fingerprint,
        ids=hash_of_ids(source),
        side=side_of(spec.input),
        fit=spec.input.fit,
        changed=changed(source),
        images=len(indices),
        bytes=offset,
        index_sha256=sha256(folder / INDEX),
        pixels_sha256=digest_of_pixels.hexdigest(),
    )
    write_text(folder / RECORD, dump_json(facts))


def _read_all(source: DataSource, indices: Indices, spec: DataSpec) -> Generator[Image, None, None]:
    """The resized images in order, decoded in `data.workers` threads."""
    is_own = all(type(one).__module__.startswith("edgekd.data.") for one in chain(source))
    if spec.workers < 2 or not is_own:
        for index in indices.tolist():
            yield read_resized(source, index, spec.input)
        return
    waiting: deque[Future[Image]] = deque()
    # what a source of somebody's own warns of, once per picture and from many threads
    with warnings.catch_warnings(), ThreadPoolExecutor(spec.workers) as pool:
        warnings.simplefilter("ignore")
        try:
            for index in indices.tolist():
                waiting.append(pool.submit(read_resized, source, index, spec.input))
                if len(waiting) > 2 * spec.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _check_ours(path: Path, source: DataSource, spec: DataSpec) -> None:
    """Raise DataError for a folder whose files are not ours, or are a copy of other data.

    A copy with hair does not take the place of one without, nor the other way round.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file, expected a folder", hint="--out FOLDER")
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    strangers = names - {PIXELS, INDEX, RECORD, HAIR, PREVIEW}
    if RECORD not in names:  # a copy of ours is swapped in whole: these only happen to be named so
        strangers = names
    if strangers:
        raise DataError(
            f"{path}: not a prepared copy: it holds '{min(strangers)}'",
            hint="--out FOLDER that is empty or not there yet",
        )
    try:
        facts = read_facts(path)
    except DataError:  # damaged or of an old format
        return
    if (facts.data, facts.root) != (spec.name, _root(spec)):
        raise DataError(
            f"{path}: the copy of other data: '{facts.data}' in {facts.root}",
            hint="--out FOLDER for a second copy, or remove this one",
        )
    check_changed(path, facts, source)


def _check_space(path: Path, needed: int) -> None:
    parent = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise MissingOnHost(
            f"{path}: the copy needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free",
            hint="--out FOLDER on another disk",
        )


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Mark a folder as being written, for as long as this process lives."""
    with held(folder / OWNED):
        yield
        (folder / OWNED).unlink()


def _remove_leftovers(path: Path) -> None:
    """Remove what a process that was killed had written, which may be as large as the copy."""
    if not has_locks():  # then who still writes cannot be told
        return
    for mark in path.parent.glob(f".{glob.escape(path.name)}.*.tmp/{OWNED}"):
        descriptor = try_lock(mark)
        if descriptor is not None:
            shutil.rmtree(mark.parent, ignore_errors=True)
            os.close(descriptor)


def _root(spec: DataSpec) -> str | None:
    return None if spec.root is None else str(Path(spec.root).expanduser().resolve())
