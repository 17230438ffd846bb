"""Every shipped recipe and every variant loads; those on drawn data also dry-run."""

from __future__ import annotations

from edgekd import catalog
from edgekd.recipe_load import digest, load


def test_every_recipe_and_variant_loads_and_says_something_of_its_own() -> None:
    walked = 0
    names = set()
    for entry in catalog.entries():
        assert entry.description, f"{entry.name} has no description"
        seen = {}
        for variant in (None, *entry.variants):
            recipe = load(entry.path, variant=variant)
            parts = [*recipe.stages.values(), *recipe.models.values()]
            key = digest([part.model_dump(by_alias=True) for part in parts])
            assert key not in seen, f"{entry.name}: {variant} and {seen.get(key)} are the same"
            seen[key] = variant
            names.add(recipe.name)
            walked += 1
    assert walked >= 11
    assert len(names) == walked
