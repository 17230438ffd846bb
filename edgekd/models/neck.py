"""A block between a network's last stage and its pooling: a neck, or a graft.

KDML (arXiv 2212.02931) gives its teacher a block of the students' width (its Table 6 calls it
Conv6), so that the maps of both can be compared and the students stay as they are. SimKD (Chen et
al., CVPR 2022) gives its student a projector to the teacher's width and the teacher's own
classifier behind it; both are deployed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.models.oltr import OltrHead
from edgekd.recipe import NeckSpec

PROBE = 64  # side of the image with which a network is asked for its last map


class NeckedNet(nn.Module):
    """`fc(mean(neck(body's last map)))`; `last` is what the neck returns, `pooled` its mean.

    What of the body comes after its last map (pooling, classifier) is not in it.
    """

    def __init__(
        self, body: nn.Module, neck: nn.Module, fc: nn.Linear, *, is_grafted: bool = False
    ) -> None:
        super().__init__()
        self.body = body
        self.neck = neck
        self.fc = fc
        self.is_grafted = is_grafted  # the classifier is a teacher's, and does not learn

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to logits (B, C)."""
        features: Tensor = self.neck(self.body.forward_features(images))  # type: ignore[operator]
        return self.fc(features.mean(dim=(2, 3)))


def add_neck(net: nn.Module, spec: NeckSpec, *, outputs: int, arch: str) -> NeckedNet:
    """The network with a conv + BN + ReLU of `spec.width` channels, and a new classifier.

    Raises RecipeError for a network whose last map cannot be asked for.
    """
    width = _cut(net, arch, "neck")
    neck = nn.Sequential(
        nn.Conv2d(width, spec.width, spec.kernel, padding=spec.kernel // 2, bias=False),
        nn.BatchNorm2d(spec.width),
        nn.ReLU(),
    )
    return NeckedNet(net, neck, nn.Linear(spec.width, outputs))


def graft(net: nn.Module, head: nn.Linear, *, arch: str) -> NeckedNet:
    """The network with SimKD's projector to the width of a teacher's classifier, and that.

    conv1x1 to half of the teacher's width, conv3x3, conv1x1 to its width, each with BN and ReLU.
    `head` is copied. Raises RecipeError as `add_neck`.
    """
    width, wide = _cut(net, arch, "graft"), head.in_features
    half = max(wide // 2, 1)
    projector = nn.Sequential(
        *_conv(width, half, 1),
        *_conv(half, half, 3),
        *_conv(half, wide, 1),
    )
    fc = nn.Linear(wide, head.out_features, bias=head.bias is not None)
    fc.load_state_dict(head.state_dict())
    return NeckedNet(net, projector, fc, is_grafted=True)


def with_oltr(net: nn.Module, *, arch: str) -> None:
    """Put OLTR's head in the place of the classifier. Raises RecipeError as `classifier_of`."""
    old = classifier_of(net, arch, "take the head `oltr`")
    for path, module in net.named_modules():
        if module is old:
            above, _, name = path.rpartition(".")
            setattr(net.get_submodule(above), name, OltrHead(old.in_features, old.out_features))
            return


def freeze_grafted(network: nn.Module) -> None:
    """A teacher's classifier inside a student does not learn."""
    for module in network.modules():
        if isinstance(module, NeckedNet) and module.is_grafted:
            module.fc.requires_grad_(False)


def classifier_of(net: Any, arch: str, what: str = "be grafted") -> nn.Linear:
    """The one linear layer that follows the mean of a network's last map.

    Raises RecipeError where more than that stands between the map and the logits (a norm, a hidden
    layer, another pooling): a projector cannot take its place.
    """
    if isinstance(net, NeckedNet):
        return net.fc
    found = getattr(net, "fc", None)
    if not isinstance(found, nn.Linear) and hasattr(net, "get_classifier"):
        found = net.get_classifier()
    if not isinstance(found, nn.Linear) or not _is_alone(net, found):
        raise RecipeError(
            f"{arch}: its classifier cannot {what}, it is more than one linear layer of the "
            "mean of the last map",
            hint="give this teacher a `neck:`, which brings a single one",
        )
    return found


def _is_alone(net: Any, head: nn.Linear) -> bool:
    """Does `head(mean(last map))` give the network's logits? Tried on one random image."""
    image = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    kept: list[Tensor] = []
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            if hasattr(net, "forward_features"):
                kept.append(net.forward_features(image))
                logits = net(image)
            else:  # torchvision's ResNets
                handle = net.avgpool.register_forward_pre_hook(lambda _, x: kept.append(x[0]))
                logits = net(image)
                handle.remove()
            joined = head(kept[0].mean(dim=(2, 3)))
    except Exception:  # somebody's network: it may raise anything
        return False
    finally:
        net.train(was_training)
    return joined.shape == logits.shape and torch.allclose(joined, logits, rtol=1e-3, atol=1e-4)


def _conv(width: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def _cut(net: Any, arch: str, key: str) -> int:
    """The channels of the last map; what is not needed for it is taken out of the network."""
    features = getattr(net, "forward_features", None)
    if features is None:
        raise RecipeError(
            f"{arch}: `{key}` needs a network with a `forward_features`, as timm's have",
            hint="take the timm: network of this kind",
        )
    used: set[nn.Module] = set()

    def note(module: nn.Module) -> Callable[..., None]:
        return lambda *_: used.add(module)

    handles = [module.register_forward_hook(note(module)) for module in net.modules()]
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            last = features(torch.zeros(1, 3, PROBE, PROBE))
            wider = features(torch.zeros(1, 3, PROBE, 2 * PROBE))
    except Exception as error:  # somebody's network: it may raise anything
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise RecipeError(
            f"{arch}: `{key}` needs a network that takes images of any size; {PROBE}x{PROBE} and "
            f"{PROBE}x{2 * PROBE} pixels were tried: {first}"
        ) from None
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    # the axis that grows with the image's width must be the last
    is_map = isinstance(last, Tensor) and last.ndim == 4 and last.shape[3] < wider.shape[3]
    if not is_map:
        found = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
        raise RecipeError(
            f"{arch}: `{key}` needs a last map (B, D, H, W), its `forward_features` returns {found}"
        )
    for name, child in net.named_children():
        if not any(module in used for module in child.modules()):
            setattr(net, name, nn.Identity())
    return int(last.shape[1])
