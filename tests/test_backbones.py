"""Splitting the host's families into blocks."""

import pytest
import torch
import torchreid
from torch import nn

from torchreid_ptl import host
from torchreid_ptl.backbones import BlockShape, block_shapes, name_blocks, run_block, split_of, splittable


def build(name):
    return torchreid.models.build_model(name, num_classes=2, pretrained=False, use_gpu=False)


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet50", (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)),
        ("resnet18", (64, 64, 128, 256, 512), (4, 4, 8, 16, 32)),
        ("se_resnet50", (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)),
        ("resnet50_ibn_b", (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)),
        ("densenet121", (64, 256, 512, 1024, 1024), (4, 4, 8, 16, 32)),
        ("osnet_x0_25", (16, 64, 96, 128, 128), (4, 4, 8, 16, 16)),
        ("osnet_ain_x0_25", (16, 64, 96, 128, 128), (4, 4, 8, 16, 16)),
        ("mobilenetv2_x1_0", (24, 32, 96, 320, 1280), (4, 8, 16, 32, 32)),
        ("shufflenet_v2_x1_0", (24, 116, 232, 464, 1024), (4, 8, 16, 32, 32)),
    ],
)
def test_channels_and_strides(name, channels, strides):
    blocks = split_of(host.models()[name]).blocks
    assert block_shapes(build(name), blocks) == [BlockShape(c, s) for c, s in zip(channels, strides, strict=True)]


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "osnet_x0_25", "osnet_ain_x0_25", "se_resnet50", "mobilenetv2_x1_0"]
)
def test_blocks_in_a_row_are_the_backbone(name):
    backbone = build(name).eval()
    x = torch.rand(2, 3, 64, 32)
    maps = x
    for block in split_of(host.models()[name]).blocks:
        maps = run_block(backbone, block, maps)
    feature = maps.mean(dim=(2, 3))
    if getattr(backbone, "fc", None) is not None:
        feature = backbone.fc(feature)
    torch.testing.assert_close(feature, backbone(x))


def test_looking_at_shapes_changes_nothing():
    backbone = build("osnet_x0_25").train()
    backbone.conv2.eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    block_shapes(backbone, split_of(host.models()["osnet_x0_25"]).blocks)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in before.items())


def test_unknown_family():
    with pytest.raises(KeyError, match=r"No split for models of 'hacnn'; known families: \['densenet'"):
        split_of(host.models()["hacnn"])
    assert "hacnn" not in splittable()


def test_blocks_by_module_or_name():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))
    assert name_blocks(net, [[net[0], "1"], net[2]]) == (("0", "1"), ("2",))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["0"], "a stem and at least one block; got 1"),
        (["0", "layer9"], "no module 'layer9'; it has"),
        (["0", nn.ReLU()], "block ReLU is no part of the backbone"),
    ],
)
def test_wrong_blocks(blocks, message):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3))
    with pytest.raises(ValueError, match=message):
        name_blocks(net, blocks)


def test_block_without_maps():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(ValueError, match="puts out feature maps"):
        block_shapes(net, (("0",), ("1",)))
