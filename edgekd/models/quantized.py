"""A network that computes in training as its int8 form will compute on the device.

NNCF places the quantizers and finds their first ranges, as it does for the export. Their
arithmetic is PyTorch's own: NNCF's would have to be compiled on the user's machine, and on a GPU
needs the CUDA toolkit. The straight-through estimator of the rounding, and ranges of activations
that follow the training by a moving average, are those of Jacob et al., CVPR 2018
(arXiv 1712.05877, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.image import UInt8, to_input
from edgekd.models.network import Network
from edgekd.nncf_settings import advanced, import_nncf, preset
from edgekd.quiet import quiet

HOOKS = "__nncf_hooks"  # the module in which NNCF keeps its quantizers
MOMENTUM = 0.01  # of a batch in the ranges of activations
TINY = 1e-8  # of a range: a tensor of zeros has none


class FakeQuantize(nn.Module):
    """Round to signed int8 with zero point 0, and back to float.

    Without `axis` the tensor is an activation: one range, renewed in training. With it the tensor
    is a weight: a range per channel, always that of the weight as it is.
    """

    amax: Tensor

    def __init__(self, amax: Tensor, axis: int | None = None) -> None:
        super().__init__()
        self.axis = axis
        if axis is None:
            self.register_buffer("amax", amax.detach().reshape(1).clone())

    def forward(self, values: Tensor) -> Tensor:
        """Any float tensor to one of the same shape and type."""
        exact = values.float()  # PyTorch rounds in float32 only
        if self.axis is None:
            return self._activation(exact).to(values.dtype)
        others = [axis for axis in range(exact.ndim) if axis != self.axis]
        scale = exact.detach().abs().amax(others).clamp_min(TINY) / 127
        zero = torch.zeros_like(scale, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(exact, scale, zero, self.axis, -127, 127)
        return rounded.to(values.dtype)

    def _activation(self, values: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.amax.lerp_(values.detach().abs().amax().reshape(1), MOMENTUM)
        scale = self.amax.clamp_min(TINY) / 127
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, -128, 127)


def quantized(network: Network, squares: UInt8) -> Network:
    """A copy of `network` in evaluation mode with quantizers, ranges seen on (N, S, S, 3).

    Its weights are still float: `plain` gives them back. Raises RecipeError for an nn.Sequential,
    MissingOnHost without NNCF.
    """
    if isinstance(network.net, nn.Sequential):  # which would run NNCF's module of hooks as a layer
        raise RecipeError("quantize: the network is an nn.Sequential",
                          hint="let its builder put it into an nn.Module of its own")  # fmt: skip
    was_training = network.training
    network.eval()
    device = network.mean.device
    with quiet():
        nncf = import_nncf("quantize: int8")

        def image(index: int) -> Tensor:
            pixels = torch.from_numpy(to_input(squares[index][None])).to(device)
            return (pixels - network.mean) / network.std

        with torch.no_grad():
            net = nncf.quantize(
                network.net,
                nncf.Dataset(range(len(squares)), image),
                subset_size=len(squares),
                preset=preset(nncf),
                # the biases learn by themselves
                advanced_parameters=advanced(disable_bias_correction=True),
            )
    _use_own_arithmetic(net)
    network.train(was_training)
    mean, std = (values.flatten().tolist() for values in (network.mean, network.std))
    copy = Network(net, mean=mean, std=std, taps=network.named_taps)
    return copy.to(device).eval()


def is_quantized(net: nn.Module) -> bool:
    """Whether the network has quantizers."""
    return hasattr(net, HOOKS)


def plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a state dict that the network has without quantizers."""
    return {key: value for key, value in state.items() if HOOKS not in key.split(".")}


def _use_own_arithmetic(net: Any) -> None:
    from nncf.torch.quantization.layers import BaseQuantizer

    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseQuantizer):
                scale = child.scale
                wide = [axis for axis, length in enumerate(scale.shape) if length > 1]
                # a weight of one output channel has a scale of one number, but of its own rank:
                # (1, 1, 1, 1); that of an activation is (1,)
                axis = wide[0] if wide else 0 if scale.ndim > 1 else None
                # by name: the parents are PyTorch's containers, which take no such attribute
                parent._modules[name] = FakeQuantize(scale, axis)
