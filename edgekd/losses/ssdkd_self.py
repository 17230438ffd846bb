"""SSD-KD's self-supervision: which images look alike (Wang et al., arXiv 2203.11490)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses._views import contrast_head, images_of, kept, own_image, ranks, similarities
from edgekd.losses.base import SINGLE_LABEL, Batch, Clock, Facts, Loss, Outputs, zero_like
from edgekd.losses.kd import kd_kl

HEAD = "head."  # what `contrastive` calls its adapter


class SSDKDSelf(Loss):
    """`tau^2 mean_r KL(softmax(c_T,r / tau) || softmax(c_S,r / tau))`, c_r cosines with all images.

    c_r are the cosines of a turned row with the B images as they are, (3 B, B), between what a head
    of two linear layers says of pooled features. The student's head is trained here. The teacher's
    was trained by a term `contrastive` of an earlier stage, which `head_of` names as STAGE.TERM,
    and stays as it is. Of the rows those count that the teacher's head gives to their own image,
    and `keep` of the others, those first whose image ranks highest. The published weight is 10.
    Batches hold four views of every image (`data.views: rotations`); labels are not needed.
    """

    taps = ("pooled",)
    tasks = SINGLE_LABEL

    def __init__(self, *, head_of: str, temperature: float = 0.5, keep: float = 0.75) -> None:
        super().__init__()
        if not re.fullmatch(r"[\w-]+\.[\w-]+", head_of):
            raise ValueError("head_of must name a stage and its term, for example head.contrastive")
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        if not 0 <= keep <= 1:
            raise ValueError("keep must be from 0 to 1")
        self.adopts = head_of  # the term of an earlier stage whose adapters `adopt` is given
        self.has_adopted = False
        self.temperature = temperature
        self.keep = keep
        self.student_head = nn.Sequential()
        self.teacher_head = nn.Sequential()

    def setup(self, student: Outputs, teachers: Sequence[Outputs], facts: Facts) -> None:
        if len(teachers) != 1:
            raise RecipeError(f"ssdkd_self: there is a head for one teacher, `from` names "
                              f"{len(teachers)}")  # fmt: skip
        ours, theirs = student.taps["pooled"], teachers[0].taps["pooled"]
        self.student_head = contrast_head(ours.shape[1]).to(ours.device)
        self.teacher_head = contrast_head(theirs.shape[1]).to(theirs.device).requires_grad_(False)

    def adopt(self, state: dict[str, Tensor]) -> None:
        """Take over the teacher's head from the state of the `contrastive` term that trained it.

        Called after `setup`, before training. Raises RecipeError for a state of another loss or
        another teacher.
        """
        own = self.teacher_head.state_dict()
        given = {key.removeprefix(HEAD): value for key, value in state.items()}
        if {key: value.shape for key, value in given.items()} != {
            key: value.shape for key, value in own.items()
        }:
            raise RecipeError(
                f"ssdkd_self: head_of: '{self.adopts}' holds no head for this teacher",
                hint="name a term of the loss `contrastive` that is `to` the same model",
            )
        self.teacher_head.load_state_dict(given)
        self.has_adopted = True

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        if not self.has_adopted:
            raise RecipeError(f"ssdkd_self: '{self.adopts}' has not handed over the teacher's head")
        images = images_of(batch, "ssdkd_self")
        ours = similarities(self.student_head(student.taps["pooled"]), images)
        theirs = similarities(self.teacher_head(teachers[0].taps["pooled"]), images)
        rows = kept(ranks(theirs, own_image(images, theirs.device)), self.keep)
        if len(rows) == 0:
            return zero_like(ours)
        return kd_kl(ours[rows], theirs[rows], self.temperature)
