"""Parameters and multiply-accumulates of the network that is exported, as papers print them."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import torch

from edgekd.errors import MissingOnHost
from edgekd.models.network import Network


@dataclass(frozen=True)
class Complexity:
    """`params` counts trainable tensors; `macs` is one image of the given size."""

    params: int
    macs: int


def count(network: Network, size: int) -> Complexity:
    """Count by fvcore's rules: one multiply-accumulate is one "FLOP", BatchNorm counts.

    The plain network is counted, BatchNorm unfolded, without adapters and without the input
    normalisation (published: Res2Net101 8.102 G, ShuffleNetV2 0.148 G, ConvNeXt-Base 15.383 G
    at 224).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it compiles helpers with the deprecated torch.jit
            from fvcore.nn import FlopCountAnalysis
    except ModuleNotFoundError:
        raise MissingOnHost(
            "counting MACs needs the package 'fvcore'", hint="pip install 'edgekd[train]'"
        ) from None
    net = network.net
    was_training = net.training
    parameter = next(net.parameters())
    image = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    try:
        net.eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing is deprecated too
            analysis = FlopCountAnalysis(net, image)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            macs = int(analysis.total())
    finally:
        net.train(was_training)
    return Complexity(params=sum(p.numel() for p in net.parameters()), macs=macs)
