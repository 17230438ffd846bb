"""What a recipe may say of a network. The rest of a recipe is in `recipe.py`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from edgekd.recipe_base import Key, PerChannel, Positive, Section

KINDS = {"timm", "torchvision", "smp", "edgekd", "file", "onnx"}


class NeckSpec(Section):
    """A convolution, BatchNorm and ReLU after the last stage: `last` gets `width` channels.

    KDML (arXiv 2212.02931) gives the teacher one, of its students' width, so that maps can be
    compared without changing the students.
    """

    width: Positive
    kernel: Literal[1, 3] = 1


class ModelSpec(Section):
    """A network by name, from the user's own file, or frozen in an ONNX file."""

    LATE: ClassVar[tuple[str, ...]] = ("neck", "graft", "classes", "head", "start")

    # timm:NAME, torchvision:NAME, smp:NAME (args: {encoder_name: ...}), edgekd:shufflenet_v1,
    # file:PATH.py:FUNCTION, onnx:PATH.onnx
    arch: str
    pretrained: bool | str = False  # true: the library's weights; or a .safetensors/.pth file
    args: dict[str, Any] = {}  # handed to the network's builder
    taps: dict[str, str] = {}  # tap name -> module path, where it cannot be found by itself
    seed: int | None = None  # initialisation; default: from the run's seed and the model's name
    neck: NeckSpec | None = None  # a block of its own between the last stage and the pooling
    graft: Key | None = None  # this frozen teacher's classifier behind a projector (SimKD)
    head: Literal["linear", "oltr"] = "linear"  # oltr: a memory of class centroids
    start: Key | None = None  # begins with this model's trained weights, all but the classifier
    classes: Key | None = None  # it knows the classes of this class group of the data only
    # per channel, in [0, 1]; default: the weights' own, or ImageNet's
    mean: PerChannel | None = None
    std: PerChannel | None = None  # above 0

    @field_validator("std")
    @classmethod
    def _is_positive(cls, std: list[float] | None) -> list[float] | None:
        if std is not None and min(std) <= 0:
            raise ValueError("must be above 0")
        return std

    @field_validator("arch")
    @classmethod
    def _has_kind(cls, arch: str) -> str:
        kind = arch.partition(":")[0]
        if ":" not in arch or kind not in KINDS:
            raise ValueError(
                "must start with timm:, torchvision:, smp:, edgekd:, file: or onnx: (for example "
                "timm:resnet18, smp:unet)"
            )
        return arch

    @model_validator(mode="after")
    def _has_one_end(self) -> ModelSpec:
        if self.neck is not None and self.graft is not None:
            raise ValueError("`graft` brings a projector of its own: leave out `neck`")
        for key in ("neck", "graft"):
            if getattr(self, key) is not None and self.arch.startswith("onnx:"):
                raise ValueError(f"`{key}` has no meaning for an ONNX file")
        if self.head != "linear" and (self.graft is not None or self.arch.startswith("onnx:")):
            raise ValueError("`head` has no meaning where another brings the classifier")
        if self.start is not None and (self.pretrained or self.graft is not None):
            raise ValueError("`start` takes the place of `pretrained` and `graft`")
        return self
