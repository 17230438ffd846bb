"""What a report knows about several labels per image; in place of records.Subject."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekd.report.mask_records import SubjectKind

Matrix = list[list[float | None]]


@dataclass(frozen=True)
class LabelClass:
    """One class: how often it was trained on, and how often it is there to be found."""

    name: str
    training: int | None  # training images that show it
    shot: str  # head, medium, tail, or nothing where that is not known
    positives: int | None  # test images that show it; None where no test predictions were kept


@dataclass(frozen=True)
class LabelFigures:
    """How well one model recognises one class; None where no test image can say it."""

    ap: float | None  # average precision
    low: float | None
    high: float | None
    sensitivity: float | None
    specificity: float | None
    threshold: float  # the probability from which on the class is there


@dataclass(frozen=True)
class LabelSubject:
    """One set of test predictions; `figures` are in the order of LabelEvidence's classes."""

    label: str
    kind: SubjectKind
    model: str
    form: str  # an artifact, or PyTorch
    images: int
    groups: int
    figures: list[LabelFigures | None]  # None: a class that the model does not know
    ece: float
    bins: list[tuple[float, float, int]]  # mean probability, share that is there, labels

    @property
    def knows(self) -> int:
        """How many classes."""
        return sum(one is not None for one in self.figures)


@dataclass(frozen=True)
class Together:
    """Which labels come together on training images: on all of them, or on those of one stage."""

    stage: str | None
    group: str | None  # of classes; the stage drops the labels of all others
    images: int
    without: int  # that show none of the classes
    labels: float  # of these classes, mean of images
    labels_of_any: float  # mean of the images that show any
    several: int  # images with two or more
    classes: list[str]
    shown: list[int]  # images per class
    both: list[list[int]]  # images that show the class of the row and that of the column
    share: Matrix  # of the images with the class of the row; None for itself, and without images
    remark: str = ""


@dataclass(frozen=True)
class Change:
    """An average precision minus the baseline's on the same images, with its interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ApChange:
    """How far each class gains on the baseline of the sweep that the run is a part of."""

    baseline: str
    mean: Change | None  # of the classes
    classes: list[Change | None]  # in the order of LabelEvidence's


@dataclass(frozen=True)
class LabelEvidence:
    """All about labels. Classes are in order of their training images, most first."""

    classes: list[LabelClass] = field(default_factory=list)
    shots: str = ""  # what makes a class head, medium or tail, in words
    subjects: list[LabelSubject] = field(default_factory=list)
    together: list[Together] = field(default_factory=list)  # all training images first
    change: ApChange | None = None
    change_missing: str = ""  # why there is none
    thresholds: str = ""  # how they were chosen, in words
    left_out: list[str] = field(default_factory=list)  # predictions that fit no classes
