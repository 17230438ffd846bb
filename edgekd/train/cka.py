"""Linear CKA: how alike two layers represent the same images, whatever their widths.

Kornblith et al., "Similarity of neural network representations revisited" (arXiv 1905.00414), and
its minibatch form of Nguyen et al. (arXiv 2010.15327), with which KDML (arXiv 2212.02931)
compares students with their teacher. Everything after the Gram matrices is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgekd.models.network import Network
from edgekd.models.taps import ACTIVATIONS
from edgekd.results import LayerKind

LEAST_IMAGES = 4  # in a batch: the unbiased estimator divides by n - 3
# What is left of float32 products where a layer does not vary is 1e-14 of them; a layer that does
# keeps a large part.
NOTHING = 1e-10
ROUNDING = 1e-12  # of a mean in float64

KINDS: dict[LayerKind, tuple[type[nn.Module], ...]] = {
    "convolution": (nn.Conv2d, nn.ConvTranspose2d),
    "normalisation": (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm),
    "activation": (
        *ACTIVATIONS, nn.SELU, nn.CELU, nn.Mish, nn.Softplus, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh,
        nn.Hardtanh,
    ),
    "linear": (nn.Linear,),
}  # fmt: skip
OF_TIMM = "timm.layers.activations"  # modules with activations of timm's own


@dataclass(frozen=True)
class Layer:
    """One call of one module: `layer1.0.relu`, and where it is called again, `layer1.0.relu#2`."""

    name: str
    kind: LayerKind


def linear_cka(first: Tensor, second: Tensor) -> float:
    """`|Y^T X|^2 / (|X^T X| |Y^T Y|)` in Frobenius norms (arXiv 1905.00414).

    Features X (n, p) and Y (n, q) of the same n images; their columns are centred here. This is the
    exact, biased form: in [0, 1], and near 1 for any features where p or q exceed n. NaN where a
    side is the same for all images.
    """
    raw = [one.double() for one in (first, second)]
    x, y = (one - one.mean(0) for one in raw)
    if any(c.norm() <= ROUNDING * one.norm() for c, one in zip((x, y), raw, strict=True)):
        return float("nan")
    return float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def gram_of(features: Tensor) -> Tensor:
    """Inner products of the features of all pairs of images: (n, ...) to (n, n), in float64.

    The mean image is taken out first. It has no part in the unbiased HSIC, but products in float32
    would lose in it what differs between images.
    """
    rows = features.flatten(1)
    rows = rows if rows.dtype == torch.float64 else rows.float()
    rows = rows - rows.mean(0)
    return (rows @ rows.T).cpu().double()


def hollow(grams: Tensor) -> Tensor:
    """Square matrices (..., n, n) with zeros on their diagonals."""
    return grams - torch.diag_embed(grams.diagonal(dim1=-2, dim2=-1))


def u_centred(grams: Tensor) -> Tensor:
    """Gram matrices (..., n, n) so centred that their inner products are unbiased, for n >= 4.

    `<u(K), u(L)> / (n (n - 3))` is HSIC_1, the unbiased estimator of Song et al. (JMLR 13, 2012;
    arXiv 2010.15327, equation 3), as the U-centring of Szekely and Rizzo (arXiv 1310.2926). Its
    three terms cancel here before they are formed. The diagonals and the sums of rows are 0.
    """
    n = grams.shape[-1]
    empty = hollow(grams)
    rows = empty.sum(-1) / (n - 2)
    total = empty.sum((-2, -1)) / ((n - 1) * (n - 2))
    return hollow(empty - rows[..., None] - rows[..., None, :] + total[..., None, None])


class MinibatchCka:
    """CKA of all pairs of layers from unbiased HSICs that are summed over batches of images.

    `sum HSIC(K, L) / sqrt(sum HSIC(K, K) sum HSIC(L, L))` (arXiv 2010.15327).
    """

    def __init__(self) -> None:
        self._cross = torch.zeros(0, 0, dtype=torch.float64)
        self._own: list[Tensor] = []  # HSIC of the layers of each model with themselves
        self._size: list[Tensor] = []  # the same sums before centring

    def add(self, first: Tensor, second: Tensor) -> None:
        """Gram matrices of the same n >= 4 images: (A, n, n) of one model, (B, n, n) of the other.

        Raises ValueError for fewer images.
        """
        n = first.shape[-1]
        if n < LEAST_IMAGES:
            raise ValueError(f"{n} images in a batch, expected {LEAST_IMAGES} or more")
        weight = 1 / (n * (n - 3))
        both = [first.double(), second.double()]
        ours, theirs = (u_centred(grams).flatten(1) for grams in both)
        cross = weight * ours @ theirs.T
        own = [weight * side.square().sum(1) for side in (ours, theirs)]
        size = [weight * hollow(grams).square().sum((1, 2)) for grams in both]
        if not self._own:
            self._cross, self._own, self._size = cross, own, size
            return
        self._cross += cross
        for place in range(2):
            self._own[place] += own[place]
            self._size[place] += size[place]

    def matrix(self) -> npt.NDArray[np.float64]:
        """CKA (A, B) of all batches so far; NaN for a layer that does not vary over the images."""
        norms = [
            torch.where(own > NOTHING * size, own, torch.nan).sqrt()
            for own, size in zip(self._own, self._size, strict=True)
        ]
        return (self._cross / torch.outer(norms[0], norms[1])).numpy()


def kind_of(module: nn.Module) -> LayerKind | None:
    """What kind of layer a module is by itself, None for all others."""
    for kind, classes in KINDS.items():
        if isinstance(module, classes):
            return kind
    return "activation" if type(module).__module__.startswith(OF_TIMM) else None


def layers_of(network: nn.Module) -> dict[str, tuple[nn.Module, LayerKind]]:
    """The modules whose outputs are layers, by their path.

    Of nested ones (a BatchNorm that holds its activation, as timm has it) the innermost count.
    """
    root = network.net if isinstance(network, Network) else network
    found = {}
    for path, module in root.named_modules():
        kind = kind_of(module)
        inside = (kind_of(child) for child in module.modules() if child is not module)
        if kind is not None and not any(inside):
            found[path] = (module, kind)
    return found


def layer_grams(network: nn.Module, images: Tensor) -> tuple[list[Layer], Tensor]:
    """The layers of one pass over images (n, 3, S, S), in order, and their Grams (layers, n, n).

    The network is asked as in evaluation, without gradients. What is not a module (a functional
    activation) is no layer, nor is an output whose first axis does not count images.
    """
    layers: list[Layer] = []
    grams: list[Tensor] = []
    calls: dict[str, int] = {}

    def see(path: str, kind: LayerKind, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(images):
            return
        calls[path] = calls.get(path, 0) + 1
        name = path if calls[path] == 1 else f"{path}#{calls[path]}"
        layers.append(Layer(name, kind))
        # at once: the next layer may overwrite what it is given, and maps are too large to keep
        grams.append(gram_of(output))

    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad(), _watched(network, see):
            network(images)
    finally:
        for module in training:
            module.training = True
    empty = torch.zeros(0, len(images), len(images), dtype=torch.float64)
    return layers, torch.stack(grams) if grams else empty


@contextmanager
def _watched(network: nn.Module, see: Callable[[str, LayerKind, Any], None]) -> Iterator[None]:
    """Hooks on all layers, gone afterwards."""

    def hook(path: str, kind: LayerKind) -> Callable[..., None]:
        return lambda module, inputs, output: see(path, kind, output)

    handles = []
    try:
        for path, (module, kind) in layers_of(network).items():
            handles.append(module.register_forward_hook(hook(path, kind)))
        yield
    finally:
        for handle in handles:
            handle.remove()
