"""What a sweep is going to run: variants x seeds of one recipe, checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekd import recipe_load
from edgekd.errors import RecipeError, did_you_mean
from edgekd.recipe import Recipe
from edgekd.stage_keys import scored_key, stage_keys

BASE = "base"  # the recipe without a variant


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. `name` is its folder; `keys` are its stages' keys in order."""

    name: str
    variant: str
    seed: int
    recipe: Recipe
    keys: dict[str, str]
    scored: str  # what `run.json` says when it is finished


@dataclass
class DataKeys:
    """The key of each data set and split; variants that share one pay for opening it once."""

    known: dict[str, str] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> str:
        """Open the data of a recipe. Raises DataError or RecipeError as training would."""
        from edgekd.data.protocol import check_splits, key_of, splits_of
        from edgekd.data.read import open_source, open_store

        for folder in recipe.plugins:
            if not Path(folder).is_dir():
                raise RecipeError(f"plugins: no such folder: {folder}")
        name = recipe_load.digest([recipe.data, recipe.plugins])
        if name not in self.known:
            spec, subset = recipe.data, recipe.subset_of(recipe.export.model)
            source = open_source(spec, [Path(folder) for folder in recipe.plugins])
            splits = splits_of(source, spec)
            check_splits(source, spec, splits, [subset])
            # a prepared copy that is not there says so now
            open_store(source, spec, splits[subset].used())
            self.known[name] = key_of(source, splits)
        return self.known[name]


def make_trial(name: str, variant: str, recipe: Recipe, data: DataKeys) -> Trial:
    """A trial of a resolved recipe."""
    key = data.of(recipe)
    keys = stage_keys(recipe, key)
    return Trial(name, variant, recipe.seed, recipe, keys, scored_key(recipe, key, keys))


def load_variant(path: Path, variant: str, overrides: Sequence[str]) -> Recipe:
    """The recipe with one variant (`base` for none) and the command line's changes."""
    chosen = None if variant == BASE else variant
    recipe = recipe_load.load(path, overrides=overrides, variant=chosen)
    recipe_load.check_trains(recipe)
    return recipe


def choose_variants(recipe: Recipe, wanted: Sequence[str]) -> list[str]:
    """The variants to run, in the recipe's order; without a wish, all of them.

    Raises RecipeError for one that the recipe does not have.
    """
    known = [BASE, *recipe.variants]
    for name in wanted:
        if name not in known:
            raise RecipeError(f"there is no variant '{name}'", hint=did_you_mean(name, known))
    return [name for name in known if name in wanted] if wanted else known


def choose_baseline(recipe: Recipe, variants: Sequence[str], wanted: str | None) -> str:
    """The variant that the others are compared with.

    The command line's, else the recipe's if it is run, else the first. Raises RecipeError for one
    that this sweep does not run.
    """
    if wanted is not None and wanted not in variants:
        raise RecipeError(
            f"--baseline {wanted}: this sweep does not run it", hint=did_you_mean(wanted, variants)
        )
    if wanted is None and recipe.baseline in variants:
        return str(recipe.baseline)
    return wanted or variants[0]


def grid(
    path: Path, variants: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> list[Trial]:
    """All trials, seed by seed, so that what is finished early can be compared.

    Raises RecipeError for a variant that cannot be resolved, and for two that resolve to the same
    stages.
    """
    for override in overrides:
        if override.partition("=")[0] == "seed":
            raise RecipeError(
                f"{override}: a sweep chooses the seeds", hint="edgekd sweep RECIPE --seeds 1,2,3"
            )
    data = DataKeys()
    trials = [
        # read anew: the data may be split by the seed
        make_trial(
            f"{name}.seed{seed}", name, load_variant(path, name, [*overrides, f"seed={seed}"]), data
        )
        for seed in seeds
        for name in variants
    ]
    first: dict[tuple[str, ...], Trial] = {}
    for trial in trials:
        exported = trial.recipe.export.model  # another one is another row of the table
        other = first.setdefault((*trial.keys.values(), exported), trial)
        if other is not trial and other.variant != trial.variant:
            raise RecipeError(
                f"{path}: the variants '{other.variant}' and '{trial.variant}' resolve to the "
                "same stages: they would be the same run",
                hint="change one of them, or choose with --variant",
            )
    return trials
