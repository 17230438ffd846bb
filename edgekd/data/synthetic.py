"""The built-in data set: drawn lesions in four grades of severity, for trying things out.

It needs no download, and it has what makes real medical sets hard: ordinal grades, rare severe
cases, several images per patient, graders who disagree. It says nothing about medicine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.data._lesion import Skin, draw, draw_skin
from edgekd.data.base import DataSource, Image, Mask, Sample
from edgekd.errors import RecipeError

VERSION = 1  # raise it when a change draws other pictures: it is in the fingerprint
GRADES = ("none", "mild", "moderate", "severe")
SHARES = (0.45, 0.27, 0.18, 0.10)
MOST_IMAGES_PER_PATIENT = 4
LOYALTY = 0.5  # how often an image has its patient's own grade instead of any
DECK = 100  # patients are dealt out in rounds of this many


class Synthetic(DataSource):
    """Drawn lesions; the same arguments give the same pixels on every machine.

    The official split (`split: official`) gives the parts `val` and `test` of the patients away
    and trains on the others. `label_noise` moves that part of the train and val labels to a
    neighbouring grade; test labels are always clean.

    With `masks` the one class is the lesion, pixel by pixel as it was drawn, in the same pictures;
    the grades are what is spread evenly over the parts. Of the pictures drawn as `none`, the part
    `empty` shows skin without a lesion.

    Raises RecipeError for arguments out of range.
    """

    classes: tuple[str, ...] = GRADES

    def __init__(
        self,
        *,
        images: int = 5000,
        size: int = 64,
        seed: int = 0,
        noise: float = 0.04,
        cue_noise: float = 0.05,
        label_noise: float = 0.06,
        val: float = 0.1,
        test: float = 0.2,
        masks: bool = False,
        empty: float = 0.0,
    ) -> None:
        for name, value, low, high in (
            ("images", images, 20, 1_000_000),
            ("size", size, 16, 1024),
            ("seed", seed, 0, 2**63),
            ("noise", noise, 0, 0.5),
            ("cue_noise", cue_noise, 0, 1),
            ("label_noise", label_noise, 0, 1),
            ("val", val, 0.01, 0.49),
            ("test", test, 0.01, 0.49),
            ("empty", empty, 0, 1 if masks else 0),
        ):
            if not low <= value <= high:
                raise RecipeError(f"data.params.{name}: {value} is not in [{low}, {high}]")
        self.size = size
        self.seed = seed
        self.noise = noise
        self.cue_noise = cue_noise
        random = np.random.default_rng([seed, images])
        counts = random.integers(1, MOST_IMAGES_PER_PATIENT + 1, images)
        self._patients = np.repeat(np.arange(images), counts)[:images]
        own = _grades(random, images)[self._patients]
        loyal = random.uniform(size=images) < LOYALTY
        self._grades: npt.NDArray[np.int64] = np.where(loyal, own, _grades(random, images))
        self._within = random.uniform(0.2, 0.8, images)  # of the grade's own range of severity
        self._parts = _parts(random, self._patients, own, val, test)
        self._targets: npt.NDArray[np.int64] = self._grades.copy()
        noisy = (random.uniform(size=images) < label_noise) & (self._parts != "test")
        step = np.where(random.uniform(size=images) < 0.5, 1, -1)
        moved = self._grades + step
        moved = np.where((moved < 0) | (moved >= len(SHARES)), self._grades - step, moved)
        self._targets[noisy] = moved[noisy]
        self.has_masks = masks
        if masks:
            self.classes = ("lesion",)
        self._empty = empty
        # numbers of their own: the other pictures stay as they are
        chance = np.random.default_rng([seed, 3]).uniform(size=images)
        self._without = (self._grades == 0) & (chance < empty)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=self._draw(index)[0],
            target=int(self._targets[index]),
            id=self.ids()[index],
            group=self.groups()[index],
        )

    def kinds(self) -> Sequence[str]:
        """The grades, with masks too."""
        return GRADES

    def mask(self, index: int) -> Mask:
        """The lesion's mask (H, W), 0 or 1."""
        return (self._draw(index)[1] > 0).astype(np.uint8)

    def targets(self) -> npt.NDArray[np.int64]:
        """The grades as labelled, noise included (N,)."""
        return np.asarray(self._targets.copy())

    def true_grades(self) -> npt.NDArray[np.int64]:
        """The grades that were drawn, before any label noise (N,)."""
        return np.asarray(self._grades.copy())

    def ids(self) -> Sequence[str]:
        """`lesion-00000`, ..."""
        return [f"lesion-{index:05d}" for index in range(len(self))]

    def groups(self) -> Sequence[str]:
        """The patients."""
        return [f"patient-{number:05d}" for number in self._patients]

    def parts(self) -> Sequence[str]:
        """The official split, by patient."""
        return [str(part) for part in self._parts]

    def fingerprint(self) -> str:
        """A hash of what is drawn: the arguments, since there are no files."""
        facts: tuple[object, ...] = (VERSION, self.size, self.seed, self.noise, self.cue_noise)
        if self.has_masks:  # without them, hashes are as they were before there were any
            facts = (*facts, self._empty)
        return hashlib.sha256(f"{super().fingerprint()}{facts}".encode()).hexdigest()

    def _draw(self, index: int) -> tuple[Image, npt.NDArray[np.uint8]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        severity = (self._grades[index] + self._within[index]) / len(SHARES)
        return draw(
            float(severity),
            self._skin(int(self._patients[index])),
            np.random.default_rng([self.seed, 1, index]),
            size=self.size,
            noise=self.noise,
            spread=self.cue_noise,
            lesion=not self._without[index],
        )

    def _skin(self, patient: int) -> Skin:
        return draw_skin(np.random.default_rng([self.seed, 2, patient]))


def _grades(random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    return random.choice(len(SHARES), size=count, p=SHARES).astype(np.int64)


def _parts(
    random: np.random.Generator,
    patients: npt.NDArray[np.int64],
    grades: npt.NDArray[np.int64],
    val: float,
    test: float,
) -> npt.NDArray[np.str_]:
    """Deal whole patients out, ordered by their grade, so that every part gets every grade."""
    unique, first = np.unique(patients, return_index=True)
    order = np.lexsort((random.permutation(len(unique)), grades[first]))
    dealt = np.empty(len(unique), dtype="<U5")
    # every round gives each part its share, spread evenly over the round
    place = (np.arange(DECK) * 0.6180339887498949) % 1.0
    deck = np.where(place < test, "test", np.where(place < test + val, "val", "train"))
    dealt[order] = np.resize(deck, len(unique))
    return dealt[np.searchsorted(unique, patients)]
