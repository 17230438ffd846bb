"""The built-in data set of several labels: drawn signs on a drawn fundus, from common to rare.

It needs no download, and it has what makes real sets of many findings hard: a long tail, findings
that come together, two eyes per patient. It says nothing about medicine.

    number  class            place      number  class           place
    0       red-spots        rim        8       yellow-cross    rim
    1       yellow-patch     macula     9       brown-arc       macula
    2       white-ring       disc       10      red-streak      disc
    3       brown-streak     vessels    11      white-cross     vessels
    4       brown-patch      rim        12      red-arc         rim
    5       white-spots      macula     13      brown-ring      macula
    6       yellow-arc       disc       14      red-patch       disc
    7       red-ring         vessels    15      white-streak    vessels
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.data._labels import kinds_of, rarest
from edgekd.data._signs import SIGNS, draw, draw_eye
from edgekd.data.base import DataSource, Labels, Sample
from edgekd.errors import RecipeError

VERSION = 1  # raise it when a change draws other pictures or labels: it is in the fingerprint
MOST_FREQUENT = 0.4  # share of the images that show the first class
FEWEST = 3  # images of a class: one for each part
ALIKE = 0.5  # correlation of a patient's two eyes


class SyntheticLabels(DataSource):
    """Drawn fundi with signs; the same arguments give the same pixels on every machine.

    Class 0 is in 40 % of the images, the last one in 1/`imbalance` of that, those between on a
    geometric line; at least three images show each. With the default 12 classes and 100:1 that is

        images    of each class                                            of the last in 20 % test
        8,000     3200 2105 1385 911 600 395 260 171 112 74 49 32             6
        40,000    16000 10527 6926 4557 2998 1973 1298 854 562 370 243 160    32

    The first third of the classes are leaders. Each other class has one of them as its partner:
    `co_occurrence` is how much of it depends on it, 1 if it is never without, 0 if the two are
    independent. The counts stay the same. Images are pairs, the eyes of one patient, which is the
    group; they have more signs in common than others. There is no official split.

    `difficulty`, from 0 to 1, makes the signs fainter and smaller and adds spots that mean nothing.

    Raises RecipeError for arguments out of range.
    """

    has_labels = True

    def __init__(
        self,
        *,
        images: int = 8000,
        size: int = 64,
        classes: int = 12,
        imbalance: float = 100.0,
        co_occurrence: float = 0.6,
        difficulty: float = 0.7,
        noise: float = 0.04,
        seed: int = 0,
    ) -> None:
        for name, value, low, high in (
            ("images", images, 20, 1_000_000),
            ("size", size, 16, 1024),
            ("classes", classes, 2, len(SIGNS)),
            ("imbalance", imbalance, 1, 10_000),
            ("co_occurrence", co_occurrence, 0, 1),
            ("difficulty", difficulty, 0, 1),
            ("noise", noise, 0, 0.5),
            ("seed", seed, 0, 2**63),
        ):
            if not low <= value <= high:
                raise RecipeError(f"data.params.{name}: {value} is not in [{low}, {high}]")
        self.size, self.seed = size, seed
        self.difficulty, self.noise = difficulty, noise
        self.classes = tuple(f"{colour}-{shape}" for colour, shape, _ in SIGNS[:classes])
        steps = np.arange(classes) / (classes - 1)
        counts = np.rint(images * MOST_FREQUENT * float(imbalance) ** -steps).astype(np.int64)
        self._labels = _deal(np.maximum(counts, FEWEST), images, co_occurrence, seed)
        self._targets = rarest(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        patient, side = divmod(index, 2)
        image = draw(
            {
                int(sign): np.random.default_rng([self.seed, 3, index, int(sign)])
                for sign in np.flatnonzero(self._labels[index])
            },
            draw_eye(np.random.default_rng([self.seed, 2, patient]), 2 * side - 1),
            np.random.default_rng([self.seed, 1, index]),
            size=self.size,
            noise=self.noise,
            difficulty=self.difficulty,
        )
        return Sample(image, int(self._targets[index]), _id(index), _group(index))

    def labels(self) -> Labels:
        """Which signs each image shows (N, C): 1 or 0."""
        return np.asarray(self._labels.copy())

    def targets(self) -> npt.NDArray[np.int64]:
        """The rarest sign of each image (N,)."""
        return np.asarray(self._targets.copy())

    def kinds(self) -> Sequence[str]:
        """The signs, and none."""
        return kinds_of(self.classes)

    def ids(self) -> Sequence[str]:
        """`eye-00000`, ..."""
        return [_id(index) for index in range(len(self))]

    def groups(self) -> Sequence[str]:
        """The patients, two images each."""
        return [_group(index) for index in range(len(self))]

    def fingerprint(self) -> str:
        """A hash of what is drawn: the arguments, since there are no files."""
        facts = (VERSION, self.size, self.seed, self.difficulty, self.noise)
        return hashlib.sha256(f"{super().fingerprint()}{facts}".encode()).hexdigest()


def _id(index: int) -> str:
    return f"eye-{index:05d}"


def _group(index: int) -> str:
    return f"patient-{index // 2:05d}"


def _deal(counts: npt.NDArray[np.int64], images: int, share: float, seed: int) -> Labels:
    """Give each class exactly its number of images (N, C).

    Of a class with a partner, the part share + (1 - share) p goes to images of the partner, which
    are the part p of all: so it depends on the partner by `share`, and not at all for 0.
    """
    labels = np.zeros((images, len(counts)), dtype=np.int8)
    leaders = -(-len(counts) // 3)
    for column, count in enumerate(counts):
        random = np.random.default_rng([seed, 0, images, column])
        shared = np.repeat(random.standard_normal(-(-images // 2)), 2)[:images]
        own = random.standard_normal(images)
        wish = np.sqrt(ALIKE) * shared + np.sqrt(1 - ALIKE) * own
        order = np.argsort(-wish, kind="stable")  # who would have the sign first
        if column < leaders:
            labels[order[:count], column] = 1
            continue
        has = labels[order, column % leaders] == 1
        among = min(round(float(count) * (share + (1 - share) * has.mean())), int(has.sum()))
        labels[order[has][:among], column] = 1
        labels[order[~has][: count - among], column] = 1
    return labels
