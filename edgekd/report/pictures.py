"""Test pictures for the page, from the recipe's data where it lies on this machine.

Only on request: they are patients', and a page is sent on.
"""

from __future__ import annotations

import base64
import io

from edgekd import plugins
from edgekd.errors import EdgekdError
from edgekd.recipe import Recipe
from edgekd.report.mask_records import MaskCase


def fetch(recipe: Recipe | None, ids: list[str]) -> tuple[dict[str, str], str]:
    """What the network saw of these images, as data: URIs by id, and why some are not there ("").

    Only edgekd's own data sources are opened: a recipe that somebody sent may name code.
    """
    if recipe is None:
        return {}, "a bundle does not name its images"
    if recipe.data.name not in plugins.names("data"):
        return {}, f"the data source '{recipe.data.name}' is not one of edgekd's own"
    from PIL import Image

    from edgekd.data.read import open_source
    from edgekd.image import to_square

    found: dict[str, str] = {}
    try:
        source = open_source(recipe.data)
        places = {name: index for index, name in enumerate(source.ids())}
        for name in ids:
            if name in places:
                square = to_square(source[places[name]].image, recipe.data.input)
                buffer = io.BytesIO()
                Image.fromarray(square).save(buffer, "PNG", optimize=True)
                text = base64.b64encode(buffer.getvalue()).decode("ascii")
                found[name] = f"data:image/png;base64,{text}"
    except EdgekdError as error:
        return {}, error.message
    except OSError as error:
        return {}, str(error)
    missing = len(set(ids) - set(found))
    return found, f"the data on this machine lacks {missing} of them" if missing else ""


def shown(cases: list[MaskCase]) -> bool:
    """Whether any case has its picture."""
    return any(case.picture for case in cases)
