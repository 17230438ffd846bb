"""The recipes that travel with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import EdgekdError, RecipeError, did_you_mean


@dataclass(frozen=True)
class Entry:
    """One shipped recipe. `name` is its path without ending, e.g. `baselines/kd-ham10000`."""

    name: str
    path: Path
    description: str
    variants: tuple[str, ...]


def folder() -> Path:
    """Where the recipes are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    for place in (package / "recipes", package.parent / "recipes"):
        if place.is_dir():
            return place
    raise EdgekdError("the recipes of this installation are missing", hint="reinstall edgekd")


def entries() -> list[Entry]:
    """All shipped recipes, by name."""
    from edgekd.recipe_load import load

    found = []
    root = folder()
    for path in sorted(root.rglob("*.yaml")):
        recipe = load(path)
        name = path.relative_to(root).with_suffix("").as_posix()
        found.append(Entry(name, path, recipe.description, tuple(recipe.variants)))
    return found


def find(name: str) -> Path:
    """The file of a shipped recipe. Raises RecipeError with a suggestion."""
    root = folder()
    names = {p.relative_to(root).with_suffix("").as_posix(): p for p in root.rglob("*.yaml")}
    plain = name.removesuffix(".yaml").removeprefix("recipes/")
    for full, path in names.items():
        if plain in (full, full.rpartition("/")[2]):
            return path
    raise RecipeError(f"no such recipe: {name}", hint=did_you_mean(plain, names))


def resolve(name: str) -> Path:
    """A recipe file by path, or a shipped one by name."""
    path = Path(name)
    if path.exists() or path.suffix in {".yaml", ".yml"}:
        return path
    return find(name)


def copy(name: str, target: Path) -> Path:
    """Copy a shipped recipe. Raises RecipeError rather than overwrite a file."""
    source = find(name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise RecipeError(f"{target} exists already", hint="name another file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{target} cannot be written: {error.strerror}") from None
    return target
