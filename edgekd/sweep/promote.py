"""Writing what a search has found into the recipe file, as a variant."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from edgekd import catalog, recipe_load
from edgekd.errors import RecipeError
from edgekd.rundir import replace_file
from edgekd.sweep.plan import BASE

BLOCK = re.compile(r"^variants:[ \t]*(#.*)?$", re.MULTILINE)
INDENT = re.compile(r"(?:\n[ \t]*(?:#.*)?)*\n([ ]+)\S")  # of the first entry
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_name(path: Path, name: str) -> None:
    """Raises RecipeError for a name that is taken or is none, before the search begins."""
    if not NAME.fullmatch(name) or name == BASE or not _is_text(name):
        raise RecipeError(
            f"--promote {name}: a variant's name has letters, digits, - and _, and is no number "
            "or word that YAML reads as something else"
        )
    if path.resolve().is_relative_to(catalog.folder().resolve()):
        raise RecipeError(
            f"--promote: {path} came with edgekd and is not edited",
            hint=f"edgekd recipes copy {path.stem} makes one of your own",
        )
    if name in (recipe_load.read_tree(path).get("variants") or {}):
        raise RecipeError(f"--promote {name}: {path} has this variant already")


def _is_text(name: str) -> bool:
    return isinstance(yaml.safe_load(name), str) and not recipe_load.SCIENTIFIC.fullmatch(name)


def promote(path: Path, name: str, source: str, values: dict[str, Any], comment: str) -> None:
    """Add the variant `name` to a recipe file: what `source` changes, and the values found.

    The file's text and comments stay. Raises RecipeError where `variants:` is not written as a
    block, or the result would not be a recipe; the file is then untouched.
    """
    check_name(path, name)
    path = path.resolve()  # what a link points to
    whole = path.read_bytes().decode("utf-8")
    newline = "\r\n" if "\r\n" in whole else "\n"
    text = whole.replace("\r\n", "\n")
    tree = recipe_load.read_tree(path)
    before: dict[str, Any] = {} if source == BASE else dict(tree["variants"][source])
    found = BLOCK.search(text)
    indent = INDENT.match(text, found.end()) if found else None
    entry = _entry(name, {**before, **values}, comment, indent.group(1) if indent else "  ")
    if found:
        changed = _insert(text, found.end(), entry)
    elif "variants" in tree:
        raise RecipeError(
            f"{path}: `variants:` is not written as a block, so it is not edited",
            hint=f"add this by hand:\n{entry.rstrip()}",
        )
    else:
        changed = f"{text.rstrip()}\nvariants:\n{entry}"
    _check(path, changed, name, entry)
    mode = path.stat().st_mode
    with replace_file(path, "wb") as file:
        file.write(changed.replace("\n", newline).encode())
    path.chmod(mode)


def _check(path: Path, changed: str, name: str, entry: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / path.name
        probe.write_text(changed, encoding="utf-8")
        try:
            recipe_load.load(probe, variant=name)
        except RecipeError:
            raise RecipeError(
                f"{path}: the variant '{name}' does not fit in by itself",
                hint=f"add this by hand:\n{entry.rstrip()}",
            ) from None


def _entry(name: str, values: dict[str, Any], comment: str, indent: str) -> str:
    lines = [f"{indent}{name}:  # {comment}"]
    for key, value in values.items():
        inline = yaml.safe_dump({key: value}, default_flow_style=True, width=10_000).strip()
        lines.append(f"{indent}{indent}{inline[1:-1]}")
    return "\n".join(lines) + "\n"


def _insert(text: str, start: int, entry: str) -> str:
    """Put the entry at the end of the block that begins before `start`."""
    position = end = text.find("\n", start) + 1 or len(text)
    for line in text[position:].splitlines(keepends=True):
        is_inside = not line.strip() or line[0] in " \t"
        if not is_inside:
            break
        position += len(line)
        if line.strip():
            end = position
    head = text[:end]
    return head + ("" if head.endswith("\n") else "\n") + entry + text[end:]
