"""How alike the layers of a run's models are: reading what `edgekd analyze` left, and its table."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.errors import DataError
from edgekd.recipe import Recipe
from edgekd.report.grid import Cell, Column, Grid
from edgekd.report.words import DOES_NOT_APPLY, NOT_RUN, decimal, plural
from edgekd.results import CkaMap
from edgekd.rundir import RunDir, sha256

UNDEFINED = "undefined"  # a layer that says the same of every image
LEAD = (
    "Linear CKA is 1 where two layers tell images apart in the same way, up to rotation and scale, "
    "and near 0 where they have nothing in common. This is the minibatch form, an unbiased "
    "estimate, which can fall a little below 0."
)


@dataclass(frozen=True)
class Finding:
    """The CKA of one layer of each model; None where it is undefined."""

    first: str
    second: str
    cka: float | None


def read(run: RunDir | None, recipe: Recipe | None) -> tuple[list[CkaMap], list[str], list[str]]:
    """The maps of a run as it is now; the pairs that its recipe wants and that lack; remarks.

    A map of other weights is not shown. Raises DataError for a damaged file.
    """
    if run is None or recipe is None:
        return [], [], []
    wanted = recipe.analysis.cka if recipe.analysis else []
    found: dict[tuple[str, str], CkaMap] = {}
    notes = []
    hashes: dict[str, str] = {}
    for path in sorted((run.root / "analysis").glob("cka.*.json")):
        one = _load(path.read_text(encoding="utf-8"), str(path))
        for name in (one.first, one.second):
            weights = run.weights(name)
            if name not in hashes and weights.is_file():
                hashes[name] = sha256(weights)
        if (hashes.get(one.first), hashes.get(one.second)) == (one.sha256_first, one.sha256_second):
            found[one.first, one.second] = one
        else:
            notes.append(f"The CKA of {one.first} and {one.second} is of other weights than this "
                         f"run's and is not shown: `edgekd analyze {run.root}` makes it anew."
                         )  # fmt: skip
    order = [pair for pair in wanted if pair in found]
    order += [pair for pair in found if pair not in wanted]
    missing = [f"{first} and {second}" for first, second in wanted if (first, second) not in found]
    return [found[pair] for pair in order], missing, notes


def _load(text: str, where: str) -> CkaMap:
    try:
        return CkaMap.model_validate_json(text)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{where} is not a map of CKA: {reason}",
                        hint="remove it; `edgekd analyze RUN` makes it anew") from None  # fmt: skip


def deepest(one: CkaMap) -> Finding | None:
    """The last layers before any classifier, where KDML (arXiv 2212.02931) looks for agreement."""
    layers = one.deepest_features
    if layers is None:
        return None
    i, j = layers
    return Finding(one.layers_first[i], one.layers_second[j], one.matrix[i][j])


def nearest(one: CkaMap) -> Finding | None:
    """The layer of the second model that is most like the deepest features of the first."""
    if one.deepest_features is None:
        return None
    i, _ = one.deepest_features
    j = one.nearest(i)
    return None if j is None else Finding(one.layers_first[i], one.layers_second[j],
                                          one.matrix[i][j])  # fmt: skip


def grid(maps: list[CkaMap]) -> Grid:
    """A row per pair of models: the deepest features, and what comes nearest to them."""
    columns = [
        Column("Models"), Column("Layers", True), Column("CKA of the deepest features", True),
        Column("Highest CKA with the first's deepest features", True),
    ]  # fmt: skip
    rows = []
    for one in maps:
        ends, best = deepest(one), nearest(one)
        images = f"{plural(one.images, f'{one.part} image')}, batches of {one.batch}"
        rows.append([
            Cell(f"{one.first}, {one.second}", below=images),
            Cell(f"{len(one.layers_first)} × {len(one.layers_second)}"),
            _cell(ends, f"{ends.first}, {ends.second}" if ends else ""),
            _cell(best, f"{best.second} of {one.second}" if best else ""),
        ])  # fmt: skip
    notes = ["Layers: every output of a convolution, a normalisation, an activation and a linear "
             "layer that is a module. Deepest features: the last of them before the classifier."
             ]  # fmt: skip
    return Grid("Centred kernel alignment (CKA) of layers", columns, rows, notes)


def _cell(found: Finding | None, where: str) -> Cell:
    if found is None:
        return Cell(DOES_NOT_APPLY, "muted")
    if found.cka is None:
        return Cell(UNDEFINED, "muted", below=where)
    return Cell(f"{found.cka:.3f}", below=where)


def missing(pairs: list[str]) -> str:
    """What to say of pairs that the recipe wants and nobody has compared."""
    return f"CKA of {'; '.join(pairs)}: {NOT_RUN}. `edgekd analyze RUN` compares them."


def words(one: CkaMap) -> str:
    """A map in a sentence, for who cannot see it."""
    ends = deepest(one)
    text = f"CKA of the layers of {one.first} and {one.second}"
    return text if ends is None else f"{text}; deepest features: {decimal(ends.cka, UNDEFINED)}"
