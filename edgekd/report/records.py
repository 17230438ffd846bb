"""What a report knows about one run or bundle: plain dataclasses that become report.json.

A figure that does not exist is None here; the words for it ("not measured", "not run") are the
business of the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edgekd.report.label_records import LabelEvidence
from edgekd.report.mask_records import MaskEvidence, SubjectKind
from edgekd.results import CkaMap, Latency, Score

PYTORCH = "PyTorch"  # the runtime of a model that was trained but not exported
ONNX_FILE = "ONNX file"  # a teacher that came as one

GateWord = Literal["passed", "accepted", "inconclusive", "refused", "not run"]


@dataclass(frozen=True)
class Timing:
    """One artifact timed on one host in one setting: the latest such measurement."""

    model: str
    artifact: str
    host: str
    runtime: str
    runtime_version: str
    device: str
    precision_asked: str
    precision_ran: str
    threads: int
    batch: int
    latency: Latency
    p50_low: float
    p50_high: float
    repeats: int
    throughput_ips: float
    load_s: float
    first_ms: float
    peak_memory_mb: float | None
    phases: dict[str, Latency]
    samples_ms: list[float]
    utc: str
    notes: list[str]
    energy_mj: float | None = None  # per image, less the power at rest
    energy_mj_low: float | None = None
    energy_mj_high: float | None = None
    energy_gross_mj: float | None = None
    idle_w: float | None = None
    load_w: float | None = None
    power_source: str | None = None
    power_mode: str | None = None
    temperature_c: float | None = None

    @property
    def setting(self) -> str:
        """Device and threads, as they tell two measurements of one artifact apart."""
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.device}, {threads}" if self.threads else self.device


@dataclass(frozen=True)
class Row:
    """A line of the main table: one model in one deployable form, timed or not."""

    model: str
    role: str  # teacher, student or model
    artifact: str | None  # None: trained, not exported
    runtime: str
    precision: str
    params: int | None
    macs: int | None
    bytes: int | None
    score: Score | None
    score_from: str | None  # where the score was taken: the artifact's own, or PyTorch's
    gate: GateWord
    timing: Timing | None  # batch 1
    knows: int | None = None  # classes, where it knows only some: its score is of these
    same_speedup: float | None = None  # teacher in this runtime and precision / this
    teacher_speedup: float | None = None  # teacher fp32 in ONNX Runtime / this
    deploy: bool = False

    @property
    def label(self) -> str:
        return f"{self.model} {self.artifact or self.runtime}"


@dataclass(frozen=True)
class Deploy:
    """The artifact to deploy on one host: the fastest of those that passed their gates."""

    artifact: str | None  # None: nothing measured, or nothing that passed
    line: str
    p50_ms: float | None = None
    tied: list[str] = field(default_factory=list)  # not told apart from it by this measurement


@dataclass(frozen=True)
class HostTable:
    """The main table of one host (`name` is None where nothing was benchmarked)."""

    name: str | None
    facts: dict[str, Any]
    rows: list[Row]
    timings: list[Timing]  # all batches and settings
    deploy: Deploy
    utc: str | None  # of the latest measurement

    @property
    def teacher(self) -> Row | None:
        """What the student can be held against: a teacher of all classes, if one has a score."""
        found = [row for row in self.rows if row.role == "teacher" and row.knows is None]
        return next((row for row in found if row.score), found[0] if found else None)


@dataclass(frozen=True)
class CheckView:
    """One check of a gate in plain words."""

    name: str
    question: str
    verdict: str
    value: float | None
    low: float | None
    high: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True)
class GateView:
    """The evidence on one artifact."""

    artifact: str
    word: GateWord
    accepted_because: str | None
    images: int | None
    groups: int | None
    checks: list[CheckView]


@dataclass(frozen=True)
class ModelScores:
    """All scores of one model or artifact on the test part."""

    name: str
    scores: dict[str, Score]
    knows: int | None = None  # classes, where it knows only some


@dataclass(frozen=True)
class Subject:
    """One set of test predictions, looked at closely."""

    label: str
    kind: SubjectKind
    images: int
    groups: int
    support: list[int]  # images per class
    recall: list[float | None]
    recall_low: list[float | None]
    recall_high: list[float | None]
    f1: list[float | None]
    confusion: list[list[int]]  # rows: the true class
    ece: float
    bins: list[tuple[float, float, int]]  # mean confidence, share right, images


@dataclass(frozen=True)
class Curve:
    """One value per epoch."""

    name: str
    epochs: list[int]
    values: list[float | None]
    chosen: int | None = None  # the epoch whose weights go on


@dataclass(frozen=True)
class StageCurves:
    """How one training stage went; no curves where it did not run."""

    stage: str
    epochs: int
    seconds: float | None
    terms: list[Curve]
    val: list[Curve]
    notes: dict[str, list[Curve]] = field(default_factory=dict)  # of a loss, by `TERM/NAME`


@dataclass(frozen=True)
class DataCard:
    """How many images and groups of each class went into which part."""

    parts: list[str]
    classes: list[str]  # of masks: the kinds of images
    images: list[list[int]]  # class x part
    groups: list[int]  # per part
    shared_groups: int  # groups found in more than one part (a leak)
    counted: str = "class"  # or kind
    totals: list[int] | None = None  # images per part, where one may count in several classes
    remark: str = ""


@dataclass(frozen=True)
class PaperRow:
    """One figure of a published table, and the same score here."""

    table: str
    title: str
    source: str
    method: str
    scenario: str | None
    member: str | None  # as the paper calls it
    model: str  # as the recipe calls it
    metric: str
    published: float | None  # None: it cannot be had
    printed: str  # the same in words
    suspect: str | None
    measured: Score | None


@dataclass(frozen=True)
class ReportData:
    """Everything on the page of one run or bundle."""

    name: str
    kind: Literal["run", "bundle"]
    description: str
    task: str
    primary: str
    primary_label: str
    higher_is_better: bool
    score_labels: dict[str, str]  # of all scores, in the task's order
    classes: list[str]
    seed: int | None
    hosts: list[HostTable]
    scores: list[ModelScores]
    gates: list[GateView]
    subjects: list[Subject]
    stages: list[StageCurves]
    data: DataCard | None
    provenance: dict[str, dict[str, str]]
    recipe_yaml: str
    siblings: str  # same for runs that differ in nothing but the seed; "" for a bundle
    notes: list[str] = field(default_factory=list)
    similarities: list[CkaMap] = field(default_factory=list)
    similarities_missing: list[str] = field(default_factory=list)  # wanted by the recipe
    beside: list[PaperRow] = field(default_factory=list)
    masks: MaskEvidence | None = None  # in place of `subjects` where answers are masks
    labels: LabelEvidence | None = None  # and where they are several labels per image

    @property
    def latest_host(self) -> HostTable:
        """The host measured last: the one whose table closes a command."""
        return max(self.hosts, key=lambda host: host.utc or "")
