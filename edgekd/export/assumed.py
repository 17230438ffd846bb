"""What an import takes on trust, in words that are said and kept: nothing in the file tells it."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.export.original import Pixels
from edgekd.results import Scores

SHOWN = 8  # classes that are listed one by one
DREW = ("edgekd drew this test part; if the model was trained on some of these images, the score "
        "is too high")  # fmt: skip


def assumed(classes: Sequence[str], pixels: Pixels, *, are_given: bool) -> list[str]:
    """The order of the outputs, and pixels that nothing was said about, a phrase each."""
    listed = [f"{number} {name}" for number, name in enumerate(classes)]
    if len(listed) > SHOWN:
        listed[SHOWN - 1 : -1] = ["..."]
    whose = "as given" if are_given else "the data's"
    notes = [f"outputs in this order ({whose}): {', '.join(listed)}"]
    if pixels == Pixels():
        notes.append("pixels: RGB in [0, 1] as they are (no --mean, --std, --scale)")
    return notes


def is_drawn(split: str) -> bool:
    """Whether `data.split` is a ratio: then nobody but edgekd said which images are for testing."""
    return split != "official" and not split.startswith("csv:")


def doubts(scores: Scores | None, classes: int, *, is_drawn: bool) -> list[str]:
    """Why the score of the file may not be what it seems, a sentence each."""
    if not scores:
        return []
    found = [DREW] if is_drawn else []
    recall = scores["macc"].value if "macc" in scores else None
    if recall is not None and recall <= 1.1 / classes:
        found.append(
            f"on the test images it is right no more often than chance (mean recall {recall:.3f}): "
            "check --mean, --std, --scale and the order of the classes"
        )
    return found
