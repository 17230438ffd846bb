"""What a report knows about test masks; in place of records.Subject, which counts whole images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SubjectKind = Literal["teacher", "student", "artifact"]


@dataclass(frozen=True)
class MaskKind:
    """The test images of one kind, or all of them."""

    name: str
    images: int
    lesions: int  # images with any foreground


@dataclass(frozen=True)
class MaskFigures:
    """How one model's masks fit the images of one kind; None where there are none to say it."""

    fscore: float | None  # mean of images
    low: float | None
    high: float | None
    found: float | None  # share of the foreground's pixels, mean of the images that have some
    alarms: float | None  # share of the images without foreground in which some is seen


@dataclass(frozen=True)
class MaskSubject:
    """One set of test masks, looked at closely; `kinds` are in the order of MaskEvidence's."""

    label: str
    kind: SubjectKind
    images: int
    groups: int
    kinds: list[MaskFigures]


@dataclass(frozen=True)
class Outline:
    """One mask of one image as the `d` of an SVG path; `kind` is truth, or the model's."""

    label: str
    kind: str
    path: str


@dataclass(frozen=True)
class MaskCase:
    """One test image that is worth looking at. What may name or show a patient stays on the page
    that asks for it (`PRIVATE`)."""

    image: int  # row of the predictions, from 1
    why: str
    of_kind: str
    area: float  # share of its pixels that are foreground, and that the student takes for such
    seen: float
    fscores: dict[str, float]  # by model
    width: int
    height: int
    outlines: list[Outline]
    id: str
    picture: str | None = None  # data: URI


PRIVATE = ("outlines", "id", "picture")  # of a MaskCase: not in report.json


@dataclass(frozen=True)
class MaskEvidence:
    """All about test masks; empty where none were kept."""

    kinds: list[MaskKind] = field(default_factory=list)
    subjects: list[MaskSubject] = field(default_factory=list)
    cases: list[MaskCase] = field(default_factory=list)
    pictures_missing: str = ""  # why pictures that were asked for are not there
