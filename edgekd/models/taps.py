"""Named feature maps of a network, without editing it.

`stem`, `s1..s4` (strides 4, 8, 16, 32 at the architecture's native stem), `last` (the map that
enters global pooling), `pooled` (its mean), and the head: everything after pooling. `s1.pre` is
the map of `s1` before the last activation of its last block, in networks of residual blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError, did_you_mean
from edgekd.models.neck import NeckedNet
from edgekd.models.network import Network
from edgekd.models.oltr import OltrHead

NAMES = ("stem", "s1", "s2", "s3", "s4", "last", "pooled", "decoder", "distances")
BEFORE = ".pre"  # after a tap's name: before its last activation
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.PReLU)


@dataclass(frozen=True)
class Place:
    """Where a tap is: what a module returns, or what it is given."""

    path: str
    is_input: bool = False
    item: int | None = None  # of the list that the module is given


def locate(network: Network) -> dict[str, Place]:
    """Find the taps of a network; the recipe's own `taps:` win. `pooled` follows from `last`."""
    net: Any = network.net
    found: dict[str, Place] = {}
    if isinstance(net, NeckedNet):
        inside = _from_timm(net.body) if hasattr(net.body, "feature_info") else {}
        found = {name: Place(f"body.{at.path}", at.is_input) for name, at in inside.items()}
        found["last"] = Place("neck")
    elif hasattr(net, "segmentation_head"):
        found = _from_smp(net)
    elif hasattr(net, "feature_info"):
        found = _from_timm(net)
    elif hasattr(net, "layer1") and hasattr(net, "maxpool"):  # torchvision ResNet family
        stages = {f"s{i}": Place(f"layer{i}") for i in range(1, 5)}
        found = {"stem": Place("maxpool"), **stages, "last": Place("avgpool", is_input=True)}
    elif hasattr(net, "stage4") and hasattr(net, "maxpool"):  # ShuffleNet: V2 widens the last map
        stages = {f"s{i}": Place(f"stage{i}") for i in range(2, 5)}
        last = Place("conv5" if hasattr(net, "conv5") else "stage4")
        found = {"stem": Place("conv1"), "s1": Place("maxpool"), **stages, "last": last}
    elif isinstance(getattr(net, "features", None), nn.Sequential):
        found = _from_features(network)
    for path, module in net.named_modules():
        if isinstance(module, OltrHead):
            found["distances"] = Place(f"{path}.distances")
    for name, path in network.named_taps.items():
        if name not in NAMES:
            raise RecipeError(f"taps.{name}: not a tap", hint=did_you_mean(name, NAMES))
        place = Place(path.removesuffix(":input"), is_input=path.endswith(":input"))
        modules = dict(net.named_modules())
        if place.path not in modules:
            raise RecipeError(
                f"taps.{name}: the network has no module '{place.path}'",
                hint=did_you_mean(place.path, modules),
            )
        found[name] = place
    return found


def _from_smp(net: Any) -> dict[str, Place]:
    """segmentation-models-pytorch: the decoder is given the encoder's maps, at strides 1, 2, ...

    `last` is the deepest of them; `decoder` the first convolution of the decoder with its
    BatchNorm and ReLU.
    """
    depth = len(net.encoder.out_channels) - 1
    names = {1: "stem", 2: "s1", 3: "s2", 4: "s3", 5: "s4"}
    found = {names[i]: Place("decoder", True, i) for i in range(1, min(depth, 5) + 1)}
    found["last"] = Place("decoder", True, depth)
    if "decoder.blocks.0.conv1" in dict(net.named_modules()):
        found["decoder"] = Place("decoder.blocks.0.conv1")
    return found


def _from_timm(net: Any) -> dict[str, Place]:
    found: dict[str, Place] = {}
    stages = {4: "s1", 8: "s2", 16: "s3", 32: "s4"}
    dilation = getattr(net, "output_stride", 32)
    by_reduction: dict[int, list[str]] = {}
    for info in net.feature_info:
        by_reduction.setdefault(int(info["reduction"]), []).append(info["module"])
    for reduction, modules in by_reduction.items():
        if reduction in stages:
            found[stages[reduction]] = Place(modules[-1])
    if dilation != 32 or len(by_reduction) < len(net.feature_info):
        # several stages at one stride (dilated): name them in order
        last_four = [info["module"] for info in net.feature_info][-4:]
        if len(last_four) == 4:
            found.update({f"s{i}": Place(m) for i, m in enumerate(last_four, 1)})
    first = found.get("s1")
    if hasattr(net, "maxpool") and first is not None and first.path == "layer1":
        found["stem"] = Place("maxpool")
    elif 2 in by_reduction:
        found["stem"] = Place(by_reduction[2][-1])
    elif hasattr(net, "stem"):
        found["stem"] = Place("stem")
    for path in ("global_pool", "head.global_pool"):
        if path in dict(net.named_modules()):
            found["last"] = Place(path, is_input=True)
            break
    return found


def _from_features(network: Network) -> dict[str, Place]:
    """torchvision nets with one `features` sequence: the last child at each stride."""
    net: Any = network.net
    strides: dict[int, str] = {}
    handles = []
    side = 256

    def hook(path: str) -> Callable[..., None]:
        def remember(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                strides[side // output.shape[-1]] = path

        return remember

    children = list(net.features.named_children())
    for name, child in children:
        handles.append(child.register_forward_hook(hook(f"features.{name}")))
    was_training = net.training
    try:
        net.eval()
        with torch.no_grad():
            net(torch.zeros(1, 3, side, side, device=network.mean.device))
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    found = {f"s{i}": Place(strides[2 ** (i + 1)]) for i in range(1, 5) if 2 ** (i + 1) in strides}
    if 2 in strides:
        found["stem"] = Place(strides[2])
    if len(children) > 1 and _widens_only(net.features[-1]):
        # the 1x1 convolution after the last stage makes `last`, not s4
        found["s4"] = Place(f"features.{children[-2][0]}")
    found["last"] = Place("features")
    return found


def _widens_only(module: nn.Module) -> bool:
    convs = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    return len(convs) == 1 and convs[0].kernel_size == (1, 1)


def head_of(network: Network) -> Callable[[Tensor], Tensor]:
    """Everything after global pooling, as a function of pooled features (M, D) -> (M, C).

    A 1x1 map passes global pooling unchanged, so timm's own `forward_head` serves. It answers as
    in evaluation, also while its network trains: without dropout, and the rows that a term asks
    about do not move the statistics of a BatchNorm.
    """
    ask = _head_of(network)

    def head(pooled: Tensor) -> Tensor:
        training = [module for module in network.modules() if module.training]
        network.eval()
        try:
            return ask(pooled)
        finally:
            for module in training:
                module.training = True

    return head


def _head_of(network: Network) -> Callable[[Tensor], Tensor]:
    net: Any = network.net
    if hasattr(net, "forward_head"):
        return lambda pooled: net.forward_head(pooled[:, :, None, None])
    if isinstance(getattr(net, "fc", None), nn.Module):
        return lambda pooled: net.fc(pooled)
    classifier = getattr(net, "classifier", None)
    if isinstance(classifier, nn.Sequential) and any(
        isinstance(layer, nn.Flatten) for layer in classifier
    ):  # ConvNeXt: LayerNorm2d, Flatten, Linear
        return lambda pooled: classifier(pooled[:, :, None, None])
    if isinstance(classifier, nn.Module):
        return lambda pooled: classifier(pooled)

    def unknown(pooled: Tensor) -> Tensor:
        raise RecipeError(f"{type(net).__name__}: its head (`fc` or `classifier`) is not known")

    return unknown


def head_parameters(network: Network) -> list[nn.Parameter]:
    """The parameters of the last classifier layer (for `optimizer.scale.heads`)."""
    for module in network.net.modules():
        if isinstance(module, OltrHead):
            return list(module.parameters())
    linear = [module for module in network.net.modules() if isinstance(module, nn.Linear)]
    return list(linear[-1].parameters()) if linear else []


def _last_activation(stage: nn.Module) -> nn.Module | None:
    """The activation after the sum of a stage's last residual block, as timm and torchvision
    write it: a child of the block that has also the convolutions (`conv1`, `conv2`)."""
    block = stage
    while not hasattr(block, "conv2"):
        children = list(block.children())
        if not children:
            return None
        block = children[-1]
    found = [child for child in block.children() if isinstance(child, ACTIVATIONS)]
    return found[-1] if found else None


class Recorder:
    """Hooks on a network that keep the wanted maps of one forward pass, from `start` to `take`.

    They keep nothing of passes between, such as those of an evaluation.
    """

    def __init__(self, network: Network, wanted: set[str], name: str) -> None:
        places = locate(network) if wanted else {}
        self.maps: dict[str, Tensor] = {}
        self.is_on = False
        self.wants_pooled = "pooled" in wanted
        modules = dict(network.net.named_modules())
        for tap in sorted((wanted - {"pooled"}) | ({"last"} if self.wants_pooled else set())):
            if tap.endswith(BEFORE) and tap.removesuffix(BEFORE) in places:
                stage = modules[places[tap.removesuffix(BEFORE)].path]
                activation = _last_activation(stage)
                if activation is None:
                    raise RecipeError(
                        f"model '{name}' has no tap '{tap}': {type(stage).__name__} does not end "
                        "in a residual block with an activation after the sum",
                        hint="tap_activation=post",
                    )
                # networks reuse or overwrite in place what the activation is given
                activation.register_forward_pre_hook(self._keep_input(tap, copies=True))
                continue
            if tap not in places:
                raise RecipeError(
                    f"model '{name}' has no tap '{tap}'",
                    hint=f"known: {', '.join(places) or 'none'}; or set models.{name}.taps.{tap}",
                )
            place = places[tap]
            module = modules[place.path]
            if place.is_input:
                module.register_forward_pre_hook(self._keep_input(tap, item=place.item))
            else:
                module.register_forward_hook(self._keep_output(tap))

    def _keep_output(self, tap: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if self.is_on:
                self.maps[tap] = output

        return hook

    def _keep_input(
        self, tap: str, *, copies: bool = False, item: int | None = None
    ) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if self.is_on:  # of a module that is called several times, the last call counts
                given = inputs[0] if item is None else inputs[0][item]
                self.maps[tap] = given.clone() if copies else given

        return hook

    def start(self) -> None:
        """Keep the maps of the pass that follows."""
        self.maps.clear()
        self.is_on = True

    def take(self) -> dict[str, Tensor]:
        """The maps of the pass since `start`, in fp32; they are forgotten here."""
        self.is_on = False
        maps = {name: tensor.float() for name, tensor in self.maps.items()}
        self.maps.clear()
        if self.wants_pooled:
            maps["pooled"] = maps["last"].mean(dim=(2, 3))
        return maps
