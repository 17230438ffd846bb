"""The classifier of OLTR (Liu et al., CVPR 2019, arXiv 1904.05160): a memory of class centroids."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.errors import RecipeError

REACH = 10.0  # the reachability is REACH / distance to the nearest centroid
SCALE = 16.0  # of the cosines
SMALLEST = 1e-6  # a denominator: above 0 in half precision too


def distances(pooled: Tensor, centroids: Tensor) -> Tensor:
    """`||f - K_c||` of features (B, D) and centroids (n, D): (B, n). Its gradient at 0 is 0."""
    return torch.linalg.vector_norm(pooled[:, None] - centroids, dim=2)


class Distances(nn.Module):
    """`||f - K_c||` as a module, so that a tap can record it for the loss `oltr`."""

    def forward(self, pooled: Tensor, centroids: Tensor) -> Tensor:
        """Features (B, D), centroids (n, D) to (B, n)."""
        return distances(pooled, centroids)


class OltrHead(nn.Module):
    """Pooled features f (B, D) to logits (B, n).

    `m = softmax(W_h f) K` what the memory says, `e = tanh(W_s f)` which part of it is taken,
    `g = 10 / min_c ||f - K_c||` how near the memory is, `v = g (f + e m)`, and the logits
    `16 (||v|| / (1 + ||v||)) cos(v, w_c)`. Both linear layers have a bias. This is the authors'
    code, as it is meant: its newest state uses a name that it does not define. Labels that do not
    exclude each other take the same head, softmax included.

    The centroids K do not learn from these logits, as in the authors' code: they start as the
    means of each class's features (`start_centroids`; 0 before) and follow the loss `oltr`. The
    authors also start `hallucinator`, W_h, from the classifier of the first stage.
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.centroids = nn.Parameter(torch.zeros(outputs, features))
        self.distances = Distances()
        self.hallucinator = nn.Linear(features, outputs)
        self.selector = nn.Linear(features, features)
        self.weight = nn.Parameter(torch.empty(outputs, features))
        bound = features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def start_centroids(self, means: Tensor) -> None:
        """Begin with each class's mean feature (n, D).

        Raises RecipeError for another shape, or a class without a mean.
        """
        if means.shape != self.centroids.shape:
            raise RecipeError(
                f"head oltr: class means are {tuple(means.shape)}, expected "
                f"{tuple(self.centroids.shape)} (classes, features)"
            )
        bad = (~torch.isfinite(means).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise RecipeError(
                f"head oltr: the mean feature of class number {bad[0]} is not finite",
                hint="a class without an image has no mean: leave it out, or let it start at 0",
            )
        with torch.no_grad():
            self.centroids.copy_(means)

    def forward(self, pooled: Tensor) -> Tensor:
        """Features (B, D) to logits (B, n)."""
        recorded = self.distances(pooled, self.centroids)
        memory = self.centroids.detach()
        # in a graph that does not learn both are the same: once is enough
        away = distances(pooled, memory) if self.centroids.requires_grad else recorded
        nearest = away.amin(dim=1, keepdim=True)
        remembered = self.hallucinator(pooled).softmax(dim=1) @ memory
        direct = pooled + self.selector(pooled).tanh() * remembered
        length = torch.linalg.vector_norm(direct, dim=1, keepdim=True)
        # v / (1 + ||v||) without g, which has no value for a feature that is a centroid
        embedding = direct / (nearest / REACH + length).clamp(min=SMALLEST)
        return SCALE * embedding @ functional.normalize(self.weight, dim=1).T
