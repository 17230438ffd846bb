"""OLTR: the classifier with a memory, its export, and the term that moves the centroids."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.export.onnx_from_torch import to_onnx
from edgekd.losses.oltr import OLTR
from edgekd.models.oltr import OltrHead
from tests.losses import multilabel_oracles as oracles
from tests.losses.multilabel_cases import LABELS, LAST, batch, says, values

WIDTH = 7


def head(seed: int = 0, *, started: bool = True) -> OltrHead:
    torch.manual_seed(seed)
    made = OltrHead(WIDTH, 5).double()
    if started:
        made.start_centroids(values(seed + 1, 5, WIDTH))
    return made


def arrays(made: OltrHead) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in made.state_dict().items()}


def term(away: Tensor, labels: Tensor = LABELS) -> Tensor:
    return OLTR()(says(values(9, len(away), 5), distances=away), [], batch(labels), LAST)


# The head.


def test_its_logits_are_the_formula() -> None:
    made, pooled = head(), values(5, 6, WIDTH, scale=2.0)
    expected = torch.from_numpy(oracles.oltr_head(pooled.numpy(), arrays(made)))
    torch.testing.assert_close(made(pooled), expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 1


def test_the_distances_are_a_module_that_a_tap_can_record() -> None:
    made, pooled = head(), values(5, 6, WIDTH)
    kept: list[Tensor] = []
    made.distances.register_forward_hook(lambda _, inputs, output: kept.append(output))
    made(pooled)
    assert len(kept) == 1
    centroids = made.centroids.detach()
    expected = [[oracles.distance(f, k) for k in centroids.tolist()] for f in pooled.tolist()]
    torch.testing.assert_close(kept[0].detach(), torch.tensor(expected, dtype=torch.float64))


def test_a_feature_that_is_a_centroid_has_finite_logits_and_gradients() -> None:
    """Its reachability, 10 / distance, is infinite: the length of the embedding is then all."""
    made = head()
    pooled = made.centroids.detach()[[3, 1]].clone().requires_grad_()
    logits = made(pooled)
    expected = oracles.oltr_head(pooled.detach().numpy(), arrays(made), least=1e-12)
    torch.testing.assert_close(logits.detach(), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)
    logits.sum().backward()
    assert pooled.grad is not None
    assert torch.isfinite(pooled.grad).all()


def test_a_feature_of_zeros_on_a_centroid_of_zeros_is_finite() -> None:
    made, pooled = head(started=False), torch.zeros(2, WIDTH, dtype=torch.float64)
    pooled.requires_grad_()
    logits = made(pooled)
    logits.sum().backward()
    assert logits.abs().max() == 0.0
    assert pooled.grad is not None
    assert torch.isfinite(pooled.grad).all()


def test_no_logit_is_above_16_and_the_nearer_the_memory_the_larger_they_are() -> None:
    made, pooled = head(), values(5, 1, WIDTH)
    assert made(values(5, 50, WIDTH, scale=10.0)).abs().max() < 16
    nn.init.zeros_(made.selector.weight)
    nn.init.zeros_(made.selector.bias)  # nothing is taken from the memory: v = g f
    found = []
    for away in (0.0, 0.1, 1.0, 10.0):
        made.start_centroids(pooled + away * values(6, 5, WIDTH).abs())
        found.append(made(pooled).abs().detach())
    for nearer, farther in pairwise(found):
        assert (nearer > farther).all()
    cosines = nn.functional.cosine_similarity(pooled, made.weight)
    torch.testing.assert_close(found[0][0], 16 * cosines.abs().detach())


def test_without_a_memory_it_is_a_cosine_classifier_of_the_feature() -> None:
    made, pooled = head(started=False), values(5, 6, WIDTH)
    cosines = nn.functional.cosine_similarity(pooled[:, None], made.weight[None], dim=2)
    length = pooled.norm(dim=1, keepdim=True)
    # the nearest centroid is 0: g = 10 / ||f||, so that ||v|| is 10
    expected = 16 * (10 / 11) * cosines
    torch.testing.assert_close(made(pooled), expected)
    assert length.std() > 0.1


def test_it_starts_from_class_means_of_the_right_shape_only() -> None:
    made = head(started=False)
    assert not made.centroids.any()
    means = values(3, 5, WIDTH)
    made.start_centroids(means)
    torch.testing.assert_close(made.centroids.detach(), means)
    assert made.centroids.requires_grad
    with pytest.raises(RecipeError, match=r"are \(7, 5\), expected \(5, 7\) \(classes, features\)"):
        made.start_centroids(means.T)
    means[2, 1] = torch.nan
    with pytest.raises(RecipeError, match="mean feature of class number 2 is not finite"):
        made.start_centroids(means)


def test_all_but_the_centroids_learn_from_the_logits() -> None:
    made = head()
    made(values(5, 6, WIDTH)).pow(2).sum().backward()
    for key, parameter in made.named_parameters():
        if key == "centroids":
            assert parameter.grad is None or not parameter.grad.any()
        else:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 1e-8, key


def test_the_gradient_of_its_logits_is_that_of_the_formula() -> None:
    made, pooled = head(), values(5, 3, WIDTH).requires_grad_()
    assert torch.autograd.gradcheck(made, (pooled,))
    assert torch.autograd.gradcheck(
        lambda f, k: made.distances(f, k), (pooled, made.centroids.detach().requires_grad_())
    )


def test_it_says_the_same_whether_it_learns_or_not() -> None:
    made, pooled = head(), values(5, 6, WIDTH)
    learning = made(pooled)
    frozen = made.requires_grad_(False)(pooled)
    torch.testing.assert_close(learning, frozen, rtol=0.0, atol=0.0)


class Small(nn.Module):
    """A network that ends in the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, WIDTH, 3, stride=2)
        self.fc = OltrHead(WIDTH, 5)
        self.fc.start_centroids(values(1, 5, WIDTH, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))


@pytest.mark.slow
def test_an_exported_network_computes_the_same(tmp_path: Path) -> None:
    network, path = Small(), tmp_path / "oltr.onnx"
    to_onnx(network, path, size=16)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows in (1, 3):
        images = torch.rand(rows, 3, 16, 16)
        (found,) = session.run(None, {"input": images.numpy()})
        np.testing.assert_allclose(found, network(images).detach().numpy(), rtol=1e-4, atol=1e-4)


# The term.


def test_it_is_the_formula() -> None:
    away = values(1, 6, 5, scale=2.0).abs()
    expected = oracles.oltr(away.numpy(), LABELS.numpy())
    assert expected > 1e-3
    assert term(away).item() == pytest.approx(expected, rel=1e-9)


def test_with_one_class_per_image_it_is_the_centroid_loss_of_the_code() -> None:
    """sum ||f - K_y||^2 / (2 B) + 0.01 max(0, 10 - sum of the others / (B n)), times 0.01."""
    away = values(1, 4, 5).abs()
    own = [2, 0, 0, 4]
    labels = nn.functional.one_hot(torch.tensor(own), 5)
    others = away.pow(2).clone()
    for row, c in enumerate(own):
        others[row, c] = 0.0
    attraction = away[range(4), own].pow(2).sum() / (2 * 4)
    repulsion = 10 - others.sum() / (4 * 5)
    assert repulsion > 0
    torch.testing.assert_close(term(away, labels), 0.01 * (attraction + 0.01 * repulsion))


def test_several_classes_attract_by_their_mean_and_an_image_without_any_by_nothing() -> None:
    away = torch.full((2, 5), 2.0, dtype=torch.float64)
    away[0, 1] = 4.0
    labels = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    others = (3 + 5) * 4.0 / 10
    expected = 0.01 * (0.5 * (4 + 16) / 2 + 0.01 * (10 - others))
    assert term(away, labels).item() == pytest.approx(expected)


def test_others_that_are_far_enough_are_left_alone() -> None:
    near = torch.zeros(2, 5, dtype=torch.float64)
    far = torch.full((2, 5), 4.0, dtype=torch.float64).requires_grad_()
    labels = torch.zeros(2, 5, dtype=torch.int64)
    assert term(near, labels).item() == pytest.approx(0.01 * 0.01 * 10)
    value = term(far, labels)
    value.backward()
    assert value.item() == 0.0
    assert far.grad is not None
    assert not far.grad.any()


def test_centroids_and_features_learn_from_it() -> None:
    made, pooled = head(), values(5, 6, WIDTH).requires_grad_()
    term(made.distances(pooled, made.centroids)).backward()
    for leaf in (made.centroids, pooled):
        assert leaf.grad is not None
        assert leaf.grad.abs().max() > 1e-6


def test_a_feature_on_its_centroid_has_a_finite_gradient() -> None:
    made = head()
    pooled = made.centroids.detach()[[0, 1, 2, 3, 4, 0]].clone().requires_grad_()
    term(made.distances(pooled, made.centroids)).backward()
    for leaf in (made.centroids, pooled):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_a_step_brings_a_centroid_nearer_to_its_features() -> None:
    made, pooled = head(), values(5, 6, WIDTH)
    labels = nn.functional.one_hot(torch.tensor([0, 0, 1, 2, 3, 4]), 5)
    before = made.distances(pooled, made.centroids)
    OLTR(repel=0.0)(says(values(1, 6, 5), distances=before), [], batch(labels), LAST).backward()
    assert made.centroids.grad is not None
    moved = made.centroids.detach() - 10 * made.centroids.grad
    after = made.distances(pooled, moved)
    own = labels.bool()
    assert after[own].pow(2).mean() < before[own].pow(2).mean()


def test_it_asks_for_the_tap_and_no_teacher() -> None:
    assert OLTR.taps == ("distances",)
    assert not OLTR.needs_teacher


@pytest.mark.parametrize(("factor", "repel"), [(0.0, 0.01), (0.01, -1.0)])
def test_a_parameter_out_of_range_is_an_error(factor: float, repel: float) -> None:
    with pytest.raises(ValueError, match="factor must be positive, and repel must not"):
        OLTR(factor=factor, repel=repel)
