"""Networks of segmentation-models-pytorch: their size, their taps, their mistakes."""

from __future__ import annotations

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.models.build import build_network
from edgekd.models.taps import Recorder, locate
from edgekd.recipe import ModelSpec

MILLIONS = {"resnet50": 33, "resnet18": 14, "tu-mobilenetv1_100": 8}  # KDML, as printed


def unet(encoder: str = "resnet18", **args: object) -> ModelSpec:
    return ModelSpec(arch="smp:unet", args={"encoder_name": encoder, **args})


@pytest.mark.parametrize("encoder", MILLIONS)
def test_the_u_nets_of_kdml_have_the_published_number_of_parameters(encoder: str) -> None:
    network = build_network(unet(encoder), outputs=1)
    found = sum(parameter.numel() for parameter in network.net.parameters())
    assert round(found / 1e6) == MILLIONS[encoder]


def test_logits_have_the_images_height_and_width() -> None:
    network = build_network(unet(), outputs=1).eval()
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 1, 64, 96)
    several = build_network(unet(), outputs=4).eval()
    assert several(torch.rand(1, 3, 64, 64)).shape == (1, 4, 64, 64)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilenetv1_100"])
def test_taps_are_the_encoders_maps_by_stride_and_the_decoders_first_convolution(
    encoder: str,
) -> None:
    network = build_network(unet(encoder), outputs=1).eval()
    wanted = ("stem", "s1", "s2", "s3", "s4", "last", "decoder")
    recorder = Recorder(network, set(wanted), "net")
    recorder.start()
    network(torch.rand(1, 3, 64, 64))
    taps = recorder.take()
    sides = {name: tuple(taps[name].shape[2:]) for name in wanted}
    assert sides == {
        "stem": (32, 32),
        "s1": (16, 16),
        "s2": (8, 8),
        "s3": (4, 4),
        "s4": (2, 2),
        "last": (2, 2),
        "decoder": (4, 4),
    }
    assert taps["decoder"].shape[1] == 256  # the same for every encoder: no adapter is needed
    assert taps["decoder"].min() >= 0
    torch.testing.assert_close(taps["s4"], taps["last"])


def test_a_decoder_of_another_kind_has_no_decoder_tap_unless_it_is_named() -> None:
    network = build_network(ModelSpec(arch="smp:fpn", args={"encoder_name": "resnet18"}), outputs=1)
    found = locate(network)
    assert "decoder" not in found
    assert "last" in found


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec(arch="smp:unt", args={}), "no 'unt'"),
        (unet("resnet_18"), "no encoder 'resnet_18'"),
        (unet(encoder_dept=3), "args"),
    ],
)
def test_mistakes_are_named(spec: ModelSpec, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_network(spec, outputs=1)
