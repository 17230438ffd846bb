"""Writing what a search has found into the recipe file, as a variant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from edgekd import recipe_load
from edgekd.errors import RecipeError
from edgekd.rundir import write_text
from edgekd.sweep.plan import BASE

BLOCK = re.compile(r"^variants:[ \t]*(#.*)?$", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_name(path: Path, name: str) -> None:
    """Raises RecipeError for a name that is taken or is none, before the search begins."""
    if not NAME.fullmatch(name) or name == BASE:
        raise RecipeError(f"--promote {name}: a variant's name has letters, digits, - and _")
    if name in (recipe_load.read_tree(path).get("variants") or {}):
        raise RecipeError(f"--promote {name}: {path} has this variant already")


def promote(path: Path, name: str, source: str, values: dict[str, Any], comment: str) -> None:
    """Add the variant `name` to a recipe file: what `source` changes, and the values found.

    The file's text and comments stay. Raises RecipeError where `variants:` is not written as a
    block, or the result would not be a recipe; the file is then untouched.
    """
    check_name(path, name)
    text = path.read_text(encoding="utf-8")
    tree = recipe_load.read_tree(path)
    before: dict[str, Any] = {} if source == BASE else dict(tree["variants"][source])
    entry = _entry(name, {**before, **values}, comment)
    found = BLOCK.search(text)
    if found:
        changed = _insert(text, found.end(), entry)
    elif "variants" in tree:
        raise RecipeError(
            f"{path}: `variants:` is not written as a block, so it is not edited",
            hint=f"add this by hand:\n{entry.rstrip()}",
        )
    else:
        changed = f"{text.rstrip()}\nvariants:\n{entry}"
    probe = path.with_name(f".{path.name}.promoted")
    try:
        probe.write_text(changed, encoding="utf-8")
        recipe_load.load(probe, variant=name)
    finally:
        probe.unlink(missing_ok=True)
    write_text(path, changed)


def _entry(name: str, values: dict[str, Any], comment: str) -> str:
    lines = [f"  {name}:  # {comment}"]
    for key, value in values.items():
        inline = yaml.safe_dump({key: value}, default_flow_style=True, width=10_000).strip()
        lines.append(f"    {inline[1:-1]}")
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
