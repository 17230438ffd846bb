"""Relational subsets distillation (RSKD; Ju et al., MICCAI 2021, arXiv 2104.11057)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.errors import RecipeError
from edgekd.log import warn
from edgekd.losses._labels import MULTILABEL, own_labels
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs

KEYS = {"ap": "ap", "accuracy": "acc"}  # of the scores of single classes, before `:CLASS`


def coin_kl(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """`KL(p || q)` of each two coins, p = sigmoid(z / T) and q that of `wanted`, of any shape.

    Its gradient goes to both.
    """
    terms = []
    for sign in (1.0, -1.0):
        ours = functional.logsigmoid(sign * logits / temperature)
        theirs = functional.logsigmoid(sign * wanted / temperature)
        terms.append(ours.exp() * (ours - theirs))
    return terms[0] + terms[1]


def dynamic_weight(teacher: float, student: float, delta: float) -> float:
    """Eq. 3: 1 while `delta A_T >= A_S`, then `(A_T - A_S) / (A_T (1 - delta))`, at least 0.

    It falls from 1 to 0 while the student's score goes from `delta` of the teacher's to all of it.
    A teacher's score of 0 gives 1 to a student that has none either, else 0.
    """
    if delta * teacher >= student:
        return 1.0
    if teacher <= 0:
        return 0.0
    return min(max((teacher - student) / (teacher * (1 - delta)), 0.0), 1.0)


class RSKD(Loss):
    """`sum_i w_i KD_i`, one term for each class, from the teachers that know the class.

    `KD_i = mean_b KL(student || teacher)` of the coins sigmoid(z_i / T), as Eq. 2 prints it
    (`kl: forward`: the usual order, teacher || student), without a factor T^2 (`t2: true`: with).
    A class of several teachers has the mean of their terms, which the paper leaves open. Eq. 4 adds
    the classes up; the default is their mean, as `bce` has it: `class_reduction: sum` wants n times
    the `bce` beside it. `scope: subset_only` takes, for each teacher, only the images that show one
    of its classes.

    `weights: dynamic` is Eq. 3 after every epoch: w_i is 1 until the student has `delta` of the
    teacher's score, and falls to 0 when it has all of it. Scores are those on the common
    validation images: what the paper calls accuracy is `score: ap`, the average precision of the
    class, by default, or `score: accuracy`, the share of right answers. The teachers' are those
    before the first epoch (the mean of several), and stay. A class without a score, as one without
    a positive image, keeps its weight, 1 at the start. The paper has T = 10 best of 3, 10, 20.
    """

    tasks = MULTILABEL
    needs_scores = True
    class_weights: Tensor  # w (n,) of the classes of the student's logits
    teacher_scores: Tensor  # A_T (n,), NaN where there is none
    places: Tensor  # (K, n): where the k-th teacher's logits have the class, or -1

    def __init__(
        self,
        *,
        temperature: float = 10.0,
        kl: Literal["reverse", "forward"] = "reverse",
        t2: bool = False,
        weights: Literal["dynamic", "fixed"] = "dynamic",
        delta: float = 0.6,
        score: Literal["ap", "accuracy"] = "ap",
        scope: Literal["all", "subset_only"] = "all",
        class_reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        if not 0 <= delta < 1:
            raise ValueError("delta must be at least 0 and below 1")
        self.temperature = temperature
        self.kl = kl
        self.t2 = t2
        self.weights = weights
        self.delta = delta
        self.score = score
        self.scope = scope
        self.class_reduction = class_reduction
        self.names: list[str] = []  # of the classes
        self.student = ""
        self.teachers: tuple[str, ...] = ()
        self.register_buffer("class_weights", None)
        self.register_buffer("teacher_scores", None)
        self.register_buffer("places", None, persistent=False)

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        """Raises RecipeError for classes that no teacher knows."""
        every = range(len(facts.classes))
        wanted = list(every if student.classes is None else student.classes)
        known = [list(every if t.classes is None else t.classes) for t in teachers]
        missing = [c for c in wanted if not any(c in classes for classes in known)]
        if missing:
            raise RecipeError(
                f"rskd: no teacher knows {', '.join(facts.classes[c] for c in missing)}",
                hint="every class must be in at least one teacher's `classes`",
            )
        self.names = [facts.classes[c] for c in wanted]
        self.student, self.teachers = facts.student, facts.teachers
        places = [[own.index(c) if c in own else -1 for c in wanted] for own in known]
        self.places = torch.tensor(places, device=student.logits.device)
        self.class_weights = student.logits.new_ones(len(wanted))
        self.teacher_scores = student.logits.new_full((len(wanted),), math.nan)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        knows = self.places >= 0
        terms = []
        for places, teacher in zip(self.places, teachers, strict=True):
            theirs = teacher.logits[:, places.clamp(min=0)]
            order = (student.logits, theirs) if self.kl == "reverse" else (theirs, student.logits)
            terms.append(self._over_images(coin_kl(*order, self.temperature), teacher, batch))
        per_class = torch.where(knows, torch.stack(terms), 0.0).sum(dim=0) / knows.sum(dim=0)
        if self.t2:
            per_class = per_class * self.temperature**2
        weighted = self.class_weights * per_class
        return weighted.sum() if self.class_reduction == "sum" else weighted.mean()

    def _over_images(self, terms: Tensor, teacher: Outputs, batch: Batch) -> Tensor:
        """The mean (n,) of (B, n) over the images that count for a teacher; 0 without any."""
        if self.scope == "all":
            return terms.mean(dim=0)
        shown = (own_labels(teacher, batch) > 0).any(dim=1)
        return torch.where(shown[:, None], terms, 0.0).sum(dim=0) / shown.sum().clamp(min=1)

    def observe(self, clock: Clock, scores: dict[str, dict[str, float]]) -> None:
        if self.weights == "fixed":
            return
        if clock.epoch == 0:
            self._learn_teachers(scores)
            return
        found = self._scores(scores, self.student)
        weights = self.class_weights.tolist()
        for i, (theirs, ours) in enumerate(zip(self.teacher_scores.tolist(), found, strict=True)):
            if not math.isnan(theirs) and not math.isnan(ours):
                weights[i] = dynamic_weight(theirs, ours, self.delta)
        self.class_weights.copy_(self.class_weights.new_tensor(weights))

    def _learn_teachers(self, scores: dict[str, dict[str, float]]) -> None:
        per_class: list[list[float]] = [[] for _ in self.names]
        for teacher, places in zip(self.teachers, self.places.tolist(), strict=True):
            if teacher not in scores:
                warn(
                    f"rskd: '{teacher}' has no scores before the first epoch (it must be frozen), "
                    "so it moves no weights"
                )
            for i, value in enumerate(self._scores(scores, teacher)):
                if places[i] >= 0 and not math.isnan(value):
                    per_class[i].append(value)
        means = [sum(values) / len(values) if values else math.nan for values in per_class]
        self.teacher_scores.copy_(self.teacher_scores.new_tensor(means))

    def _scores(self, scores: dict[str, dict[str, float]], model: str) -> list[float]:
        """A model's score of each class, NaN where there is none."""
        own = scores.get(model, {})
        return [own.get(f"{KEYS[self.score]}:{name}", math.nan) for name in self.names]

    def notes(self) -> dict[str, float]:
        """The weights, if they move."""
        if self.weights == "fixed":
            return {}
        weights = self.class_weights.tolist()
        return {f"w:{name}": weight for name, weight in zip(self.names, weights, strict=True)}
