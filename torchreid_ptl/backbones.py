"""How each of the host's backbone families splits into a stem and blocks.

A block is a list of module names inside the backbone, run one after another. What a block puts out is what a
BConv-Cell is fed with; a transition that only shrinks the map belongs to the block after it, so that the cell sees
the full output [ours, for DenseNet as PTL's authors count its blocks].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import host

Block = tuple[str, ...]

RELU = "torch.relu"
"""Stands in a block where the host calls the function instead of a module."""


@dataclass(frozen=True)
class Split:
    """The parts of a backbone.

    Attributes:
        blocks: names of the modules of the stem and of each block, or :data:`RELU`.
        embedding: name of the embedding layer (N, C) -> (N, D) behind the pooling, or '' when there is none.
        wide: whether a cell hands the next one twice its width (DenseNet's plan) or its own (ResNet's).
    """

    blocks: tuple[Block, ...]
    embedding: str = ""
    wide: bool = False


@dataclass(frozen=True)
class BlockShape:
    """Channels of a block's output and its stride in pixels of the input image."""

    channels: int
    stride: int


_LAYERS: tuple[Block, ...] = (("layer1",), ("layer2",), ("layer3",), ("layer4",))
_RESNET = Split((("conv1", "bn1", "relu", "maxpool"), *_LAYERS), embedding="fc")
_FAMILIES: dict[str, Split] = {
    "resnet": _RESNET,
    "resnet_ibn_a": _RESNET,
    "resnet_ibn_b": _RESNET,
    "senet": Split((("layer0",), *_LAYERS), embedding="fc"),
    "densenet": Split(
        (
            ("features.conv0", "features.norm0", "features.relu0", "features.pool0"),
            ("features.denseblock1",),
            ("features.transition1", "features.denseblock2"),
            ("features.transition2", "features.denseblock3"),
            ("features.transition3", "features.denseblock4", "features.norm5", RELU),
        ),
        embedding="fc",
        wide=True,
    ),
    "osnet": Split(
        (
            ("conv1", "maxpool"),
            ("conv2.0", "conv2.1"),
            ("conv2.2", "conv3.0", "conv3.1"),
            ("conv3.2", "conv4"),
            ("conv5",),
        ),
        embedding="fc",
    ),
    "osnet_ain": Split(
        (("conv1", "maxpool"), ("conv2",), ("pool2", "conv3"), ("pool3", "conv4"), ("conv5",)), embedding="fc"
    ),
    "mobilenetv2": Split(
        (("conv1", "conv2", "conv3"), ("conv4",), ("conv5", "conv6"), ("conv7", "conv8"), ("conv9",)), embedding="fc"
    ),
    "shufflenetv2": Split((("conv1", "maxpool"), ("stage2",), ("stage3",), ("stage4",), ("conv5",))),
}


def splittable() -> list[str]:
    """Names of the host's models that can be split, in the host's order."""
    return [name for name, factory in host.models().items() if _family(factory) in _FAMILIES]


def split_of(factory: host.Factory) -> Split:
    """The split of the models a host factory builds.

    Raises:
        KeyError: the factory's family is unknown; names the known ones.
    """
    family = _family(factory)
    if family not in _FAMILIES:
        raise KeyError(f"No split for models of {family!r}; known families: {sorted(_FAMILIES)}")
    return _FAMILIES[family]


def name_blocks(
    backbone: nn.Module, blocks: Sequence[str | nn.Module | Sequence[str | nn.Module]]
) -> tuple[Block, ...]:
    """Turns a user's list of blocks into names.

    Each is a module of the backbone, its dotted name, or a sequence of these run in order; the stem comes first.

    Raises:
        ValueError: fewer than two blocks, or one that is no part of ``backbone``.
    """
    names = {id(module): name for name, module in backbone.named_modules() if name}
    named = []
    for block in blocks:
        parts = block if isinstance(block, Sequence) and not isinstance(block, (str, nn.Module)) else [block]
        named.append(tuple(_name(item, names) for item in parts))
    if len(named) < 2:
        raise ValueError(f"PTL needs a stem and at least one block; got {len(named)} block(s): {named}")
    return tuple(named)


def run_block(backbone: nn.Module, block: Block, x: Tensor) -> Tensor:
    """Passes ``x`` through the modules of one block."""
    for name in block:
        x = torch.relu(x) if name == RELU else backbone.get_submodule(name)(x)
    return x


@torch.no_grad()
def block_shapes(backbone: nn.Module, blocks: Sequence[Block], size: int = 64) -> list[BlockShape]:
    """Channels and strides of blocks, found by sending one blank image through them in evaluation mode.

    The image is a square with a side of ``size`` pixels, at least the largest stride. Nothing in the backbone changes.
    """
    parameter = next(backbone.parameters())
    x = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    shapes = []
    for block in blocks:
        x = run_block(backbone, block, x)
        if x.dim() != 4:
            raise ValueError(
                f"Block {block} puts out shape {tuple(x.shape)}; a PTL block puts out feature maps (N, C, H, W)"
            )
        shapes.append(BlockShape(x.shape[1], max(1, size // x.shape[2])))
    for module, mode in modes:
        module.training = mode
    return shapes


def _family(factory: host.Factory) -> str:
    """The host's file a factory stands in; '' for a factory of somebody else."""
    package, _, family = getattr(factory, "__module__", "").rpartition(".")
    return family if package == host.part("models").__name__ else ""


def _name(item: str | nn.Module, names: dict[int, str]) -> str:
    if isinstance(item, str):
        if item not in names.values() and item != RELU:
            raise ValueError(f"The backbone has no module {item!r}; it has {sorted(names.values())[:20]} ...")
        return item
    if id(item) not in names:
        raise ValueError(f"The block {type(item).__name__} is no part of the backbone; pass its modules or their names")
    return names[id(item)]
