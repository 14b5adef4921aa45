"""PTL: BConv-Cells beside a backbone of any kind."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Block, BlockShape, block_shapes, name_blocks, run_block
from ..cells import BConvCell, BConvCellV2

STARTS = ("identity", "random")
STATES = ("carry", "reset")
VERSIONS: dict[int, type[BConvCell] | None] = {0: None, 1: BConvCell, 2: BConvCellV2}


class PTL(nn.Module):
    r"""Progressive Transfer Learning network around a backbone.

    arXiv 1908.02492, Eq. 3 and Fig. 2 [paper], with ``[a ; b]`` the concatenation of channels::

        x^i = block_i(x^{i-1})                         the backbone, x^0 from its stem
        y^i = cell_i(fusion_i([x^i ; y^{i-1}]))        y^{-1} from two cells that look at the image itself
        feature = pool(last([x^n ; y^{n-1}]))          a 1x1 convolution to the backbone's own width

    followed in training by a classifier of three fully connected layers. The stem and every block but the last have a
    cell of their own; the two cells on the image are the authors' code [code]. The widths are this project's plan
    [ours]: it meets the totals the paper reports for ResNet-50 and DenseNet-161 (35 M and 42 M with 1,041 identities)
    and shrinks with the backbone for lighter ones. A backbone with an embedding layer of its own keeps it behind the
    pooling [ours].

    The host's contract: logits in training (``loss='softmax'``) or (logits, feature) (``loss='triplet'``), the
    (N, feature_dim) descriptor in evaluation, the (N, C, H, W) map with ``return_featuremaps=True``.

    Args:
        backbone: a network; its layers keep their names below ``backbone.``, so that its checkpoints can be loaded.
        version: 1 for BConvCell, 2 for BConvCellV2, 0 for no cells (the paper's baseline: the same last convolution
            and classifier without them).
        blocks: the stem and the blocks, each a module of ``backbone``, its name, or a sequence of these.
        num_classes: number of training identities.
        loss: ``'softmax'`` or ``'triplet'``.
        start: ``'identity'``: the last 1x1 convolution begins as the identity on the backbone's channels and near zero
            on the cell's, so that a pre-trained model keeps its descriptor [ours]; ``'random'`` [paper].
        state: ``'carry'``: the state passes from batch to batch [paper]; ``'reset'``: it is cleared before each
            [code: what the authors' release does from its second epoch on].
        embedding: name of the backbone's embedding layer (N, C) -> (N, D), or ''.
        wide: the width plan of DenseNet (True) or of ResNet (False).
        bias: whether the cells have biases.
        hidden: width of the classifier's two hidden layers.

    Raises:
        ValueError: an unknown ``version``, ``start`` or ``state``, or blocks that are not the backbone's.
        KeyError: an unknown ``loss``, as in the host.
    """

    def __init__(
        self,
        backbone: nn.Module,
        version: int = 1,
        *,
        blocks: Sequence[str | nn.Module | Sequence[str | nn.Module]],
        num_classes: int = 1,
        loss: str = "softmax",
        start: str = "identity",
        state: str = "carry",
        embedding: str = "",
        wide: bool = False,
        bias: bool = True,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        _check(version=(version, VERSIONS), start=(start, STARTS), state=(state, STATES))
        self.loss = check_loss(loss)
        self.blocks: tuple[Block, ...] = name_blocks(backbone, blocks)
        shapes = block_shapes(backbone, self.blocks)
        if hasattr(backbone, "classifier"):
            backbone.classifier = nn.Identity()  # the classifier below takes its place
        self.backbone = backbone
        self.embedding = embedding if embedding and getattr(backbone, embedding, None) is not None else ""
        width = shapes[-1].channels
        beside = self._build_cells(shapes, VERSIONS[version], wide, bias)
        self.last = nn.Conv2d(width + beside, width, 1)
        self.feature_dim = width
        if self.embedding:
            self.feature_dim = output_of_zeros(backbone.get_submodule(self.embedding), 1, width).shape[1]
        self.classifier = _classifier(self.feature_dim, hidden, num_classes)
        self._initialise(start)
        for cell in (*self.image_cells, *self.cells):
            cell.carry = state == "carry"

    def forward(self, x: Tensor, return_featuremaps: bool = False) -> Any:
        """Maps images (N, 3, H, W) to what the host's contract asks for in the present mode."""
        maps = self._maps(x)
        if return_featuremaps:
            return self.last(maps)
        feature = self.last(F.adaptive_avg_pool2d(maps, 1)).flatten(1)  # the same as pooling behind the 1x1, cheaper
        if self.embedding:
            feature = self.backbone.get_submodule(self.embedding)(feature)
        if not self.training:
            return feature
        logits = self.classifier(feature)
        return logits if self.loss == "softmax" else (logits, feature)

    def adapt_state_dict(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Renames the entries of a plain backbone's checkpoint to where they stand in this network."""
        own = self.state_dict().keys()
        return {key if key in own else f"backbone.{key}": value for key, value in state.items()}

    def _maps(self, x: Tensor) -> Tensor:
        """The maps (N, C + C', H', W') that the last 1x1 convolution sees."""
        y = x
        for cell in self.image_cells:
            y = cell(y)
        for block, fusion, cell in zip(self.blocks, self.fusions, self.cells, strict=False):
            x = run_block(self.backbone, block, x)
            y = cell(fusion(_beside(x, y)))
        for block in self.blocks[len(self.cells) :]:
            x = run_block(self.backbone, block, x)
        return _beside(x, y) if len(self.cells) else x

    def _build_cells(self, shapes: list[BlockShape], kind: type[BConvCell] | None, wide: bool, bias: bool) -> int:
        """Adds cells and fusions; returns the width of the last cell's output."""
        self.image_cells = nn.ModuleList()
        self.fusions = nn.ModuleList()
        self.cells = nn.ModuleList()
        if kind is None:
            return 0
        image, fused, cells = _widths(shapes, wide)
        first = 2 if shapes[0].stride >= 4 else 1
        strides = (first, max(1, shapes[0].stride // first))
        for (before, after), stride in zip(itertools.pairwise((3, *image)), strides, strict=True):
            self.image_cells.append(kind(before, after, stride=stride, bias=bias))
        y = image[-1]
        for (shape, following), middle, after in zip(itertools.pairwise(shapes), fused, cells, strict=True):
            self.fusions.append(fusion(shape.channels + y, middle))
            self.cells.append(kind(middle, after, stride=max(1, following.stride // shape.stride), bias=bias))
            y = after
        return y

    def _initialise(self, start: str) -> None:
        for module in (self.image_cells, self.fusions, self.cells, self.last, self.classifier):
            initialise(module)
        nn.init.normal_(self.classifier[-1].weight, std=0.01)  # type: ignore[arg-type]
        if start == "identity":
            width = self.last.out_channels
            nn.init.normal_(self.last.weight, std=1e-3)
            with torch.no_grad():
                self.last.weight[:, :width] = torch.eye(width)[:, :, None, None]


def _classifier(width: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Three fully connected layers [paper] with batch normalisation and ReLU between them [ours].

    Without the normalisation they learn so slowly that a short fine-tuning spoils the feature before them.
    """
    layers: list[nn.Module] = []
    for before in (width, hidden):
        layers += [nn.Linear(before, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(hidden, num_classes))


def fusion(in_channels: int, out_channels: int) -> nn.Sequential:
    """The 1x1 convolution, batch normalisation and ReLU in front of a cell [code]."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def initialise(module: nn.Module) -> None:
    """He initialisation of the new layers, zero biases [code: the authors' for convolutions]."""
    for child in module.modules():
        if isinstance(child, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(child.weight, mode="fan_in")
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def _beside(x: Tensor, y: Tensor) -> Tensor:
    """Concatenates channels; where a backbone rounds odd sizes differently the cell's map is fitted to its."""
    if x.shape[-2:] != y.shape[-2:]:
        y = F.interpolate(y, size=x.shape[-2:], mode="nearest")
    return torch.cat([x, y], dim=1)


def _widths(shapes: list[BlockShape], wide: bool) -> tuple[list[int], list[int], list[int]]:
    """Widths of image cells, fusions and paired cells [ours], in full for 1,024 channels before the last block."""
    count = len(shapes) - 1
    scale = min(1.0, shapes[-2].channels / 1024)

    def scaled(width: int) -> int:
        return max(8, 8 * round(width * scale / 8))

    fused = [64 * 2**i for i in range(count)]
    cells = [64, *(64 * 2 ** (i + (1 if wide else 0)) for i in range(1, count))][: count - 1] + [128]
    return [scaled(16), scaled(32)], [scaled(w) for w in fused], [scaled(w) for w in cells]


@torch.no_grad()
def output_of_zeros(network: nn.Module, *shape: int) -> Any:
    """What a network gives in evaluation for zeros; neither its modes nor anything else in it changes."""
    parameter = next(network.parameters())
    modes = [(module, module.training) for module in network.modules()]
    try:
        return network.eval()(torch.zeros(shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for module, mode in modes:
            module.training = mode


def check_loss(loss: str) -> str:
    """The loss a model is built for, if the host's contract knows it."""
    if loss not in ("softmax", "triplet"):
        raise KeyError(f"Unsupported loss: {loss!r}; a model is built for 'softmax' or 'triplet'")
    return loss


def _check(**choices: tuple[Any, Any]) -> None:
    for name, (got, allowed) in choices.items():
        if got not in allowed:
            raise ValueError(f"{name} is {got!r}; allowed: {', '.join(repr(choice) for choice in allowed)}")
