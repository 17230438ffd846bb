"""EML (re-derived): the fusion, the terms, symmetric peers, and what of it is exported."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Outputs
from edgekd.losses.eml import EML
from tests.losses import dspkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_logits, random_maps
from tests.losses.umkd_oracles import slope

TARGETS = [1, 0, 4, 2]
AFTER = replace(CLOCK, epoch=80)  # of the ramp


def peer(seed: int, width: int = 6, side: int = 4, learns: bool = True) -> Outputs:
    maps = random_maps(seed, 4, width, side).requires_grad_(learns)
    return outputs(random_logits(seed + 50, rows=4).requires_grad_(learns), last=maps)


def built(one: Outputs, other: Outputs, **params) -> EML:
    torch.manual_seed(0)
    loss = EML(**{"width": 3, **params})
    loss.setup(one, [other], FACTS)
    return loss.double()


def value(loss: EML, one: Outputs, other: Outputs, epoch: int = 80) -> Tensor:
    return loss(one, [other], batch(TARGETS), replace(CLOCK, epoch=epoch))


def layer(of: nn.Module) -> oracles.Layer:
    return of.weight.detach().numpy(), of.bias.detach().numpy()


def fused(loss: EML, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    own = loss.fusion
    return oracles.fusion_logits(
        one,
        other,
        [layer(each) for each in own.peers],
        own.gate.weight.detach().numpy(),
        layer(own.depthwise),
        layer(own.pointwise),
        layer(own.classifier),
    )


def numbers(of: Outputs) -> tuple[np.ndarray, np.ndarray]:
    return of.taps["last"].detach().numpy(), of.logits.detach().numpy()


def expected(loss: EML, one: Outputs, other: Outputs, ramp: float = 1.0) -> float:
    (map_1, z_1), (map_2, z_2) = numbers(one), numbers(other)
    z_f = fused(loss, map_1, map_2)
    return oracles.eml(z_1, z_2, z_f, TARGETS, loss.temperature, ramp)


@pytest.mark.parametrize(("width", "side"), [(6, 4), (8, 4), (5, 2), (5, 6)])
def test_the_fusion_is_the_formula_whatever_the_sizes(width: int, side: int) -> None:
    one, other = peer(1), peer(2, width, side)
    loss = built(one, other)
    found = loss.fusion(one.taps["last"], other.taps["last"])
    wanted = fused(loss, numbers(one)[0], numbers(other)[0])
    assert wanted.std() > 1e-3
    torch.testing.assert_close(found.detach(), torch.from_numpy(wanted), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_formula(temperature: float) -> None:
    one, other = peer(1), peer(2, 8)
    loss = built(one, other, temperature=temperature)
    wanted = expected(loss, one, other)
    assert value(loss, one, other).item() == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(("epoch", "t"), [(1, 1 / 80), (40, 0.5), (80, 1.0), (120, 1.0)])
def test_divergences_come_in_over_the_first_80_epochs(epoch: int, t: float) -> None:
    one, other = peer(1), peer(2, 8)
    loss = built(one, other)
    wanted = expected(loss, one, other, math.exp(-5 * (1 - t) ** 2))
    assert value(loss, one, other, epoch).item() == pytest.approx(wanted, rel=1e-10)


def test_without_a_ramp_they_are_there_from_the_start() -> None:
    one, other = peer(1), peer(2, 8)
    loss = built(one, other, ramp=0)
    assert value(loss, one, other, 1).item() == pytest.approx(expected(loss, one, other), rel=1e-10)


def test_both_peers_and_the_fusion_learn() -> None:
    one, other = peer(1), peer(2, 8)
    loss = built(one, other)
    value(loss, one, other).backward()
    for of in (one, other):
        for leaf in (of.logits, of.taps["last"]):
            assert leaf.grad is not None
            assert leaf.grad.abs().max() > 1e-6
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-10, name


def test_the_gradient_of_logits_takes_the_mean_and_the_fusion_for_constants() -> None:
    one, other = peer(1), peer(2, 8)
    loss = built(one, other)
    value(loss, one, other).backward()
    (map_1, z_1), (map_2, z_2) = numbers(one), numbers(other)
    z_f, z_e = fused(loss, map_1, map_2), (z_1 + z_2) / 2
    wanted = slope(lambda z: oracles.kd(z, z_e, 3.0) + oracles.kd(z, z_f, 3.0), z_1)
    assert one.logits.grad is not None
    torch.testing.assert_close(one.logits.grad, torch.from_numpy(wanted), rtol=1e-6, atol=1e-8)


def test_maps_learn_from_the_label_and_from_the_ensemble_of_the_fusion() -> None:
    one, other = peer(1, 2, 2), peer(2, 3, 2)
    loss = built(one, other)
    value(loss, one, other).backward()
    (map_1, z_1), (map_2, z_2) = numbers(one), numbers(other)

    def at(maps: np.ndarray) -> float:
        z_f = fused(loss, maps, map_2)
        return oracles.cross_entropy(z_f, TARGETS) + oracles.kd(z_f, (z_1 + z_2) / 2, 3.0)

    maps = one.taps["last"]
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, torch.from_numpy(slope(at, map_1)), rtol=1e-5, atol=1e-8)


def test_the_peers_may_change_places() -> None:
    """With their own 1x1 convolutions: nothing else in the fusion knows which is which."""
    one, other = peer(1), peer(2, 8)
    straight, turned = built(one, other), built(other, one)
    state = straight.state_dict()
    for part in ("weight", "bias"):
        keys = [f"fusion.peers.{number}.{part}" for number in (0, 1)]
        state[keys[0]], state[keys[1]] = state[keys[1]], state[keys[0]]
    turned.load_state_dict(state)
    found = value(turned, other, one).item()
    assert found == pytest.approx(value(straight, one, other).item(), rel=1e-12)


class _Says(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, *_: Tensor) -> Tensor:
        return self.logits


def test_where_all_logits_agree_only_the_cross_entropy_is_left() -> None:
    one, other = peer(1), peer(2, 8)
    loss = built(one, other)
    loss.fusion = _Says(one.logits.detach())
    same = Outputs(one.logits + 2.0, other.taps, other.head)  # a constant per row is nothing
    wanted = oracles.cross_entropy(one.logits.detach().numpy(), TARGETS)
    assert value(loss, one, same).item() == pytest.approx(wanted, rel=1e-10)
    assert value(loss, one, other).item() > wanted + 0.1


def test_images_without_a_label_count_in_the_divergences_only() -> None:
    one, other = peer(1), peer(2, 8)
    loss = built(one, other)
    found = loss(one, [other], batch([-1] * 4), AFTER).item()
    z_f = fused(loss, numbers(one)[0], numbers(other)[0])
    assert found == pytest.approx(
        expected(loss, one, other) - oracles.cross_entropy(z_f, TARGETS), rel=1e-9
    )


@pytest.mark.parametrize("rows", [1, 4])
def test_logits_of_any_size_are_finite_and_one_image_suffices(rows: int) -> None:
    peers = []
    for seed, width in ((1, 6), (2, 8)):
        full = peer(seed, width, learns=False)
        logits = (1e4 * full.logits[:rows]).float().requires_grad_()
        peers.append(outputs(logits, last=full.taps["last"][:rows].float().requires_grad_()))
    found = built(*peers).float()(peers[0], peers[1:], batch(TARGETS[:rows]), AFTER)
    found.backward()
    assert torch.isfinite(found)
    for of in peers:
        for leaf in (of.logits, of.taps["last"]):
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()


def test_its_saved_state_gives_the_same_value_to_the_bit() -> None:
    one, other = peer(1), peer(2, 8)
    first = built(one, other)
    torch.manual_seed(9)
    second = EML(width=3)
    second.setup(one, [other], FACTS)
    second.double().load_state_dict(first.state_dict())
    assert torch.equal(value(first, one, other), value(second, one, other))


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_peer_without_a_gradient_is_an_error_that_says_what_to_set(frozen: int) -> None:
    peers = [peer(1, learns=frozen != 0), peer(2, 8, learns=frozen != 1)]
    loss = built(*peers)
    with pytest.raises(RecipeError, match="both peers learn") as error:
        value(loss, *peers)
    assert error.value.hint is not None
    assert "stop_gradient: false" in error.value.hint
    with torch.no_grad():  # where nothing learns, nothing is missing
        assert torch.isfinite(value(loss, *peers))


def test_it_joins_two_peers_and_not_three() -> None:
    with pytest.raises(RecipeError, match="two peers, `from` names 2"):
        EML().setup(peer(1), [peer(2), peer(3)], FACTS)


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"ramp": -1}, {"width": 0}])
def test_a_parameter_out_of_range_is_an_error(params: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        EML(**params)


TERMS = {
    "ce_s": {"loss": "ce", "to": "s"},
    "ce_t": {"loss": "ce", "to": "t"},
    "eml": {"from": "t", "to": "s", "stop_gradient": False, "params": {"width": 5, "ramp": 0}},
}


def test_in_a_stage_both_networks_learn_and_the_fusion_stays_behind() -> None:
    from tests.train.test_distiller import batch as images
    from tests.train.test_distiller import make, net

    distiller = make(TERMS, train=["s", "t"], frozen=[])
    distiller.train()
    distiller(images(), CLOCK)["eml"].backward()
    for name, network in distiller.networks.items():
        assert all(p.grad is not None for p in network.parameters()), name
    assert all(p.grad is not None and p.grad.any() for p in distiller.adapters())
    plain = net(0).state_dict()
    for network in distiller.networks.values():
        assert network.state_dict().keys() == plain.keys()


@pytest.mark.parametrize(
    ("change", "train", "frozen"),
    [({"stop_gradient": True}, ["s", "t"], []), ({}, ["s"], ["t"])],
)
def test_in_a_stage_that_holds_a_peer_fixed_it_is_an_error(
    change: dict, train: list[str], frozen: list[str]
) -> None:
    from tests.train.test_distiller import batch as images
    from tests.train.test_distiller import make

    losses = {key: TERMS[key] for key in ("ce_s", "eml")}
    losses["eml"] = {**losses["eml"], **change}
    distiller = make(losses, train=train, frozen=frozen)
    with pytest.raises(RecipeError, match="eml: both peers learn from this term"):
        distiller(images(), CLOCK)
