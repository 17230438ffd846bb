"""CKA against plain loops in float64, what it must not see, and which layers it is taken of."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from edgekd.models.network import Network
from edgekd.train.cka import (
    OF_TIMM,
    MinibatchCka,
    gram_of,
    kind_of,
    layer_grams,
    linear_cka,
    u_centred,
)

Array = npt.NDArray[np.float64]


def features(n: int, width: int, seed: int = 0, mean: float = 3.0) -> Array:
    return mean + np.random.default_rng(seed).normal(size=(n, width)) * np.arange(1, width + 1)


def cka_by_hand(x: Array, y: Array) -> float:
    """The sums of squares of all products of centred columns, one by one."""

    def squares(a: Array, b: Array) -> float:
        total = 0.0
        for i in range(a.shape[1]):
            for j in range(b.shape[1]):
                total += (
                    sum(
                        (a[k, i] - a[:, i].mean()) * (b[k, j] - b[:, j].mean())
                        for k in range(len(a))
                    )
                    ** 2
                )
        return total

    return squares(y, x) / (squares(x, x) * squares(y, y)) ** 0.5


def hsic_by_hand(x: Array, y: Array) -> float:
    """The mean over all quadruples of different images (Song et al. 2012, theorem 1)."""
    k, m = x @ x.T, y @ y.T
    total = count = 0.0
    for t, u, v, w in itertools.permutations(range(len(x)), 4):
        total += k[t, u] * m[t, u] + k[t, u] * m[v, w] - 2 * k[t, u] * m[t, v]
        count += 1
    return total / count


def hsic(x: Array, y: Array) -> float:
    n = len(x)
    ours, theirs = (u_centred(gram_of(torch.from_numpy(one))) for one in (x, y))
    return float((ours * theirs).sum()) / (n * (n - 3))


def minibatch(*batches: tuple[list[Array], list[Array]]) -> Array:
    cka = MinibatchCka()
    for first, second in batches:
        cka.add(*(torch.stack([gram_of(torch.from_numpy(one)) for one in side])
                  for side in (first, second)))  # fmt: skip
    return cka.matrix()


def orthogonal(width: int) -> Array:
    return np.linalg.qr(np.random.default_rng(5).normal(size=(width, width)))[0]


@pytest.mark.parametrize(("p", "q"), [(3, 5), (12, 4)])
def test_the_exact_form_is_the_formula(p: int, q: int) -> None:
    x, y = features(9, p), features(9, q, seed=1)
    found = linear_cka(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(cka_by_hand(x, y), rel=1e-12)
    assert 0 <= found <= 1


@pytest.mark.parametrize("n", [4, 5, 7])
def test_the_centred_products_are_the_unbiased_estimator(n: int) -> None:
    x, y = features(n, 6), features(n, 3, seed=1)
    y[:, 0] += x[:, 1]
    assert hsic(x, y) == pytest.approx(hsic_by_hand(x, y), rel=1e-9)
    centred = u_centred(gram_of(torch.from_numpy(x)))
    assert centred.diagonal().abs().max() == 0
    assert centred.sum(0).abs().max() < 1e-10 * centred.abs().max()


def test_the_minibatch_form_is_a_ratio_of_sums_for_all_pairs_of_layers() -> None:
    first = [[features(n, w, seed=n + w) for w in (4, 7, 2)] for n in (6, 5)]
    second = [[features(n, w, seed=n * w) for w in (3, 9)] for n in (6, 5)]
    found = minibatch(*zip(first, second, strict=True))
    assert found.shape == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        cross, ours, theirs = (
            sum(hsic_by_hand(a[b], c[d]) for a, c in zip(one, other, strict=True))
            for one, b, other, d in (
                (first, i, second, j), (first, i, first, i), (second, j, second, j))
        )  # fmt: skip
        assert found[i, j] == pytest.approx(cross / (ours * theirs) ** 0.5, rel=1e-9)
        assert abs(found[i, j]) <= 1


def test_one_batch_is_the_ratio_of_its_own_three() -> None:
    x, y = features(8, 5), features(8, 4, seed=2)
    expected = hsic_by_hand(x, y) / (hsic_by_hand(x, x) * hsic_by_hand(y, y)) ** 0.5
    assert minibatch(([x], [y])) == pytest.approx(np.array([[expected]]), rel=1e-9)


@pytest.mark.parametrize("form", ["exact", "minibatch"])
def test_rotation_and_scale_are_not_seen_other_maps_are(form: str) -> None:
    def cka(x: Array, y: Array) -> float:
        if form == "exact":
            return linear_cka(torch.from_numpy(x), torch.from_numpy(y))
        return float(minibatch(([x], [y]), ([x[1:]], [y[1:]]))[0, 0])

    x, y = features(10, 6), features(10, 6, seed=3)
    y[:, :2] += x[:, :2]
    assert cka(x, x) == pytest.approx(1, abs=1e-12)
    assert cka(x, y) == pytest.approx(cka(y, x), rel=1e-12)
    assert cka(x @ orthogonal(6), y) == pytest.approx(cka(x, y), rel=1e-9)
    assert cka(-0.01 * x + 40, y) == pytest.approx(cka(x, y), rel=1e-9)
    assert abs(cka(x * [100, 1, 1, 1, 1, 1], y) - cka(x, y)) > 0.05


def test_the_unbiased_form_does_not_rise_with_the_width() -> None:
    """Where features that have nothing in common are many, the biased form sees likeness."""
    x, y = (np.random.default_rng(seed).normal(size=(20, 400)) for seed in (1, 2))
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(y)) > 0.9
    assert abs(minibatch(([x], [y]))[0, 0]) < 0.2


def test_a_layer_that_is_the_same_for_all_images_has_no_cka() -> None:
    x, same = features(6, 4), np.full((6, 3), 7.1)
    almost = np.zeros((6, 3))
    almost[2] = 5.0  # one image alone: no pair of others differs
    found = minibatch(([x, same, np.zeros((6, 3)), almost], [x, same]))
    assert np.isnan(found).tolist() == [[False, True], *[[True, True]] * 3]
    assert np.isnan(linear_cka(torch.from_numpy(same), torch.from_numpy(x)))


def test_float32_is_enough_under_a_large_mean() -> None:
    x = features(16, 2000, mean=0) / 1000
    y = x[:, ::3].copy()
    single = torch.from_numpy(x.astype(np.float32)) + 1000
    cka, exact = MinibatchCka(), minibatch(([x], [y]))[0, 0]
    cka.add(gram_of(single)[None], gram_of(torch.from_numpy(y))[None])
    assert cka.matrix()[0, 0] == pytest.approx(exact, abs=1e-3)


def test_three_images_are_too_few() -> None:
    x = features(3, 4)
    with pytest.raises(ValueError, match="3 images in a batch"):
        minibatch(([x], [x]))


class Block(nn.Module):
    """One ReLU, in place, called twice; a Linear at the end; a layer that does not see images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.drop = nn.Dropout(0.5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 2)
        self.over_classes = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        x = self.relu(self.conv2(x))
        logits: Tensor = self.fc(self.pool(self.drop(x)).flatten(1))
        return logits + 0 * self.over_classes(torch.ones(1, 1))


@pytest.fixture
def block() -> Network:
    torch.manual_seed(0)
    net = Block()
    net.bn.running_mean += 0.2
    return Network(net)


def test_layers_are_named_in_order_and_counted_per_call(block: Network) -> None:
    layers, grams = layer_grams(block, torch.rand(5, 3, 8, 8))
    assert [layer.name for layer in layers] == ["conv", "bn", "relu", "conv2", "relu#2", "fc"]
    assert [layer.kind for layer in layers] == [
        "convolution", "normalisation", "activation", "convolution", "activation", "linear"
    ]  # fmt: skip
    assert grams.shape == (6, 5, 5)
    assert grams.dtype == torch.float64


def test_what_an_activation_overwrites_was_seen_before(block: Network) -> None:
    images = torch.rand(5, 3, 8, 8)
    _, grams = layer_grams(block, images)
    net = block.net
    with torch.no_grad():
        conv = net.conv.eval()((images - block.mean) / block.std)
        bn = net.bn.eval()(conv)
        relu = bn.clamp(min=0)
        expected = [conv, bn, relu, conv2 := net.conv2(relu), conv2.clamp(min=0)]
    assert not torch.allclose(bn, relu)
    for found, layer in zip(grams, expected, strict=False):
        assert torch.allclose(found, gram_of(layer), rtol=1e-5)


def test_a_pass_leaves_no_hook_and_no_mode_behind(block: Network) -> None:
    block.train()
    block.net.bn.eval()
    before = block.net.bn.running_mean.clone()
    with torch.enable_grad():
        first, again = (layer_grams(block, torch.ones(4, 3, 8, 8))[1] for _ in range(2))
    assert torch.equal(first, again)  # no dropout
    assert not first.requires_grad
    assert torch.equal(block.net.bn.running_mean, before)
    assert block.training
    assert block.net.relu.training
    assert not block.net.bn.training
    assert not any(module._forward_hooks for module in block.modules())


def test_hooks_are_gone_after_a_failure(block: Network) -> None:
    with pytest.raises(RuntimeError):
        layer_grams(block, torch.rand(4, 5, 8, 8))
    assert not any(module._forward_hooks for module in block.modules())


class Nested(nn.BatchNorm2d):
    """A BatchNorm that holds its activation, as timm writes it."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__(4)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


def test_of_nested_layers_the_innermost_counts() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), Nested(nn.SiLU()), nn.Conv2d(4, 4, 1), Nested(nn.Identity())
    )
    layers, _ = layer_grams(net, torch.rand(4, 3, 4, 4))
    assert [layer.name for layer in layers] == ["0", "1.act", "2", "3"]
    assert [layer.kind for layer in layers][1::2] == ["activation", "normalisation"]


def test_activations_of_timms_own_are_known_by_where_they_are_from() -> None:
    swish = type("Swish", (nn.Module,), {"forward": lambda self, x: x * x.sigmoid()})
    assert kind_of(swish()) is None
    swish.__module__ = f"{OF_TIMM}_me"
    assert kind_of(swish()) == "activation"


def test_a_network_without_layers_has_none() -> None:
    layers, grams = layer_grams(nn.Flatten(), torch.rand(4, 3, 2, 2))
    assert layers == []
    assert grams.shape == (0, 4, 4)
