"""A block between the last stage and the pooling: a teacher's neck, a student's graft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import CheckpointError, RecipeError
from edgekd.models.build import build_network
from edgekd.models.complexity import count
from edgekd.models.neck import NeckedNet, add_neck, classifier_of, freeze_grafted
from edgekd.models.network import Network
from edgekd.models.taps import Recorder, head_of, locate
from edgekd.recipe import ModelSpec, NeckSpec

THIN = {"channels": [8, 16, 32, 64], "stem_width": 8}
TEACHER = ModelSpec(arch="timm:resnet10t", args=THIN, neck=NeckSpec(width=24))
PLAIN = ModelSpec(arch="timm:resnet10t", args=THIN)


def taps_of(network: Network, *wanted: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    recorder = Recorder(network, set(wanted), "net")
    recorder.start()
    logits = network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    return logits, recorder.take()


def test_the_last_map_has_the_necks_width_and_the_stages_keep_theirs() -> None:
    network = build_network(TEACHER, outputs=5).eval()
    logits, taps = taps_of(network, "s3", "s4", "last", "pooled")
    assert logits.shape == (2, 5)
    assert [tuple(taps[name].shape) for name in ("s3", "s4", "last", "pooled")] == [
        (2, 32, 4, 4),
        (2, 64, 2, 2),
        (2, 24, 2, 2),
        (2, 24),
    ]
    assert taps["last"].min() >= 0  # after its ReLU


def test_the_head_of_a_necked_network_takes_pooled_features_to_its_logits() -> None:
    network = build_network(TEACHER, outputs=5).eval()
    logits, taps = taps_of(network, "pooled")
    torch.testing.assert_close(head_of(network)(taps["pooled"]), logits)


def test_nothing_of_the_plain_classifier_is_left() -> None:
    """Its weights would be counted, exported and never trained."""
    plain = count(build_network(PLAIN, outputs=5), 64).params
    necked = count(build_network(TEACHER, outputs=5), 64).params
    assert necked == plain - (64 * 5 + 5) + 64 * 24 + 2 * 24 + (24 * 5 + 5)


def test_a_neck_of_3x3_keeps_the_size_of_the_map() -> None:
    spec = TEACHER.model_copy(update={"neck": NeckSpec(width=24, kernel=3)})
    network = build_network(spec, outputs=5).eval()
    _, taps = taps_of(network, "s4", "last")
    assert taps["s4"].shape[2:] == taps["last"].shape[2:]


@pytest.mark.parametrize("arch", ["mobilenetv3_small_050", "efficientnet_b0", "convnext_atto"])
def test_every_weight_of_a_necked_network_learns(arch: str) -> None:
    """What stands between the last map and the classifier (conv_head, norm) is not in it."""
    spec = ModelSpec(arch=f"timm:{arch}", neck=NeckSpec(width=16))
    network = build_network(spec, outputs=3)
    network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert "last" in locate(network)


def test_the_same_seed_gives_the_same_neck() -> None:
    first, second, other = (build_network(TEACHER, outputs=5, seed=s).net for s in (1, 1, 2))
    assert torch.equal(first.neck[0].weight, second.neck[0].weight)
    assert not torch.equal(first.neck[0].weight, other.neck[0].weight)


def test_a_checkpoint_of_the_plain_network_serves_for_one_with_a_neck(tmp_path: Path) -> None:
    """Somebody's teacher has no neck: it learns with the rest, and needs a stage for that."""
    plain = build_network(PLAIN, outputs=7, seed=3)
    path = tmp_path / "teacher.safetensors"
    save_file(plain.net.state_dict(), path)
    spec = TEACHER.model_copy(update={"pretrained": str(path)})
    network = build_network(spec, outputs=5)
    assert torch.equal(network.net.body.layer4[0].conv1.weight, plain.net.layer4[0].conv1.weight)
    with pytest.raises(CheckpointError, match="without the neck"):  # nobody would train it
        build_network(spec, outputs=5, new_head=False)


def test_a_checkpoint_with_its_neck_is_taken_whole(tmp_path: Path) -> None:
    trained = build_network(TEACHER, outputs=5, seed=3)
    path = tmp_path / "teacher.safetensors"
    save_file(trained.net.state_dict(), path)
    spec = TEACHER.model_copy(update={"pretrained": str(path)})
    again = build_network(spec, outputs=5, seed=4, new_head=False)
    for key, value in trained.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[key])


def test_a_graft_ends_in_the_teachers_own_classifier() -> None:
    """SimKD: equal features behind the projector give the teacher's logits."""
    teacher = build_network(PLAIN, outputs=5, seed=1).eval()
    head = classifier_of(teacher.net, "teacher")
    student = build_network(PLAIN, outputs=5, seed=2, head=head).eval()
    assert isinstance(student.net, NeckedNet)
    student.net.neck = nn.Identity()
    student.net.body.load_state_dict(teacher.net.state_dict(), strict=False)
    images = torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(student(images), teacher(images))


def test_the_projector_is_simkds() -> None:
    """conv1x1 to half the teacher's width, conv3x3, conv1x1 to it, each with BN and ReLU."""
    head = nn.Linear(96, 5)
    net = build_network(PLAIN, outputs=5, head=head).net
    convs = [layer for layer in net.neck if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convs] == [
        (64, 48, (1, 1)),
        (48, 48, (3, 3)),
        (48, 96, (1, 1)),
    ]
    assert [type(layer).__name__ for layer in net.neck] == ["Conv2d", "BatchNorm2d", "ReLU"] * 3


def test_the_grafted_classifier_is_a_copy_that_does_not_learn() -> None:
    head = nn.Linear(96, 5)
    net = build_network(PLAIN, outputs=5, head=head).net
    assert torch.equal(net.fc.weight, head.weight)
    assert net.fc.weight.data_ptr() != head.weight.data_ptr()
    net.requires_grad_(True)
    freeze_grafted(net)
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert "fc.weight" not in learning
    assert "neck.0.weight" in learning


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("torchvision:resnet18", "forward_features"),
        ("timm:vit_tiny_patch16_224", "(last map|64x64)"),
        ("timm:mambaout_femto", "last map"),  # its channels come last
    ],
)
def test_a_network_without_a_last_map_cannot_have_a_neck(arch: str, message: str) -> None:
    spec = ModelSpec(arch=arch, neck=NeckSpec(width=8))
    with pytest.raises(RecipeError, match=message):
        build_network(spec, outputs=2)


@pytest.mark.parametrize(
    ("arch", "args"),
    [
        ("mobilenetv3_small_050", {}),  # a convolution behind the pooling
        ("convnext_atto", {}),  # a norm
        ("resnet10t", {**THIN, "global_pool": "max"}),
    ],
)
def test_a_classifier_of_more_than_the_mean_and_a_line_cannot_be_grafted(
    arch: str, args: dict[str, object]
) -> None:
    teacher = build_network(ModelSpec(arch=f"timm:{arch}", args=args), outputs=3)
    with pytest.raises(RecipeError, match="more than one linear layer"):
        classifier_of(teacher.net, arch)


def test_a_necks_single_layer_can_be_grafted() -> None:
    teacher = build_network(ModelSpec(arch="timm:mobilenetv3_small_050"), outputs=3)
    necked = add_neck(teacher.net, NeckSpec(width=8), outputs=3, arch="x")
    assert classifier_of(necked, "x").in_features == 8


@pytest.mark.parametrize("args", [{"drop_rate": 0.5}, {"global_pool": "max"}])
def test_an_end_that_a_neck_replaces_cannot_be_asked_for(args: dict[str, object]) -> None:
    spec = TEACHER.model_copy(update={"args": {**THIN, **args}})
    with pytest.raises(RecipeError, match="no meaning with a neck"):
        build_network(spec, outputs=2)


def test_a_resnet_of_torchvision_can_give_its_classifier() -> None:
    teacher = build_network(ModelSpec(arch="torchvision:resnet18"), outputs=3)
    assert classifier_of(teacher.net, "resnet18").in_features == 512
