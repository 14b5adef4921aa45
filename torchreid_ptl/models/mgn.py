"""MGN, alone and with BConv-Cells."""

import copy
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells import BConvCell
from .convert import convert_authors_weights, is_authors_state, shared_place
from .ptl import STATES, VERSIONS, _check, check_loss, fusion, initialise

BRANCHES = ("p1", "p2", "p3")
STRIPES = (0, 2, 3)
STRIDE = 32
PART_DIM = 256
PARTS = 8
_CELL_WIDTH = 128


class MGN(nn.Module):
    r"""Multiple Granularity Network on ResNet-50, with BConv-Cells when ``version`` is 1 or 2.

    Wang et al., ACM MM 2018; cells, fusions and order of parts as in the PTL authors' release [code]: three branches
    share the network up to the first unit of layer3; p1 keeps the stride of layer4, p2 and p3 lose it. Each branch is
    max-pooled as a whole, p2 also in two and p3 in three horizontal stripes. One shared reduction (1x1 convolution,
    batch normalisation, ReLU) makes each of the eight 256-d parts, in the order: whole p1, p2, p3; stripes of p2;
    stripes of p3. With cells, a cell runs beside every stage and one in front of each branch; its map is pooled like
    the branch's and joined to it before the reduction.

    Stripes are cut by adaptive pooling [ours]: the same as the code's at 384x128, and rows shared by two neighbouring
    stripes where a height does not divide by three.

    The host's contract: eight logits in training (``loss='softmax'``) or (eight logits, the three whole-map parts)
    (``loss='triplet'``: the triplet loss sees those, not normalised [code]); in evaluation the (N, 2048) descriptor,
    the eight parts side by side; with ``return_featuremaps=True`` the (N, 2048, H/32, W/32) map of p1.

    Args:
        resnet: a ResNet-50 with torchvision's names of layers; its weights begin all three branches.
        version: 0 without cells, 1 for BConvCell, 2 for BConvCellV2.
        num_classes: number of training identities.
        loss: ``'softmax'`` or ``'triplet'``.
        state: ``'carry'`` or ``'reset'``, as in :class:`PTL`.
        bias: whether the cells have biases.

    Attributes:
        all_parts: whether training with ``loss='triplet'`` gives all eight parts as features, for distillation, of
            which the triplet loss should see the first ``triplet_parts``.

    Raises:
        ValueError: an unknown option, or an input whose sides do not divide by 32.
        KeyError: an unknown ``loss``, as in the host.
    """

    triplet_parts = len(BRANCHES)

    def __init__(
        self,
        resnet: nn.Module,
        version: int = 0,
        *,
        num_classes: int = 1,
        loss: str = "softmax",
        state: str = "carry",
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check(version=(version, VERSIONS), state=(state, STATES))
        self.loss = check_loss(loss)
        self.feature_dim = PARTS * PART_DIM
        self.all_parts = False
        r: Any = resnet
        self.stem = nn.Sequential(r.conv1, r.bn1, r.relu, r.maxpool)
        self.layer1, self.layer2, self.layer3_0 = r.layer1, r.layer2, r.layer3[0]
        self.branches = nn.ModuleDict({name: _branch(r, stride=2 if name == "p1" else 1) for name in BRANCHES})
        kind = VERSIONS[version]
        self.cells = None if kind is None else _Cells(kind, bias)
        width = r.layer4[0].downsample[0].out_channels + (_CELL_WIDTH if kind else 0)
        self.reduction = nn.Sequential(
            nn.Conv2d(width, PART_DIM, 1, bias=kind is not None),  # as in the two networks of the release [code]
            nn.BatchNorm2d(PART_DIM),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.ModuleList(nn.Linear(PART_DIM, num_classes) for _ in range(PARTS))
        for module in (self.cells, self.reduction, self.classifier):
            if module is not None:
                initialise(module)
        nn.init.normal_(self.reduction[1].weight, mean=1.0, std=0.02)  # type: ignore[arg-type]
        for child in self.modules():
            if isinstance(child, BConvCell):
                child.carry = state == "carry"

    def forward(self, x: Tensor, return_featuremaps: bool = False) -> Any:
        """Maps images (N, 3, H, W), H and W multiples of 32, to what the host's contract asks for."""
        _check_size(x)
        shared, maps = self._shared(x)
        if return_featuremaps:
            return self.branches["p1"](shared)
        parts = self._parts(shared, maps)
        if not self.training:
            return torch.cat(parts, dim=1)
        logits = [classifier(part) for classifier, part in zip(self.classifier, parts, strict=True)]
        return logits if self.loss == "softmax" else (logits, parts if self.all_parts else parts[: self.triplet_parts])

    def adapt_state_dict(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Renames the entries of a plain ResNet-50's or of the authors' checkpoint to where they stand here."""
        if is_authors_state(state):
            return convert_authors_weights(state)
        own = self.state_dict().keys()
        adapted: dict[str, Tensor] = {}
        for key, value in state.items():
            adapted |= {key: value} if key in own else dict.fromkeys(_resnet_places(key), value)
        return adapted

    def _shared(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The map (N, 1024, H/16, W/16) all branches start from and the cell's map for each branch."""
        stages = [self.stem(x)]
        for layer in (self.layer1, self.layer2, self.layer3_0):
            stages.append(layer(stages[-1]))
        return stages[-1], {} if self.cells is None else self.cells(x, stages)

    def _parts(self, shared: Tensor, maps: dict[str, Tensor]) -> list[Tensor]:
        """The eight parts, each (N, 256), reduced in their order: the batch normalisation's averages depend on it."""
        branches = [self.branches[name](shared) for name in BRANCHES]
        if maps:
            branches = [torch.cat([branch, maps[name]], dim=1) for name, branch in zip(BRANCHES, branches, strict=True)]
        wholes = [self._reduce(branch, 1) for branch in branches]
        stripes = [self._reduce(branch, rows) for branch, rows in zip(branches, STRIPES, strict=True) if rows]
        return [part for parts in (*wholes, *stripes) for part in parts]

    def _reduce(self, branch: Tensor, rows: int) -> list[Tensor]:
        pooled = F.adaptive_max_pool2d(branch, (rows, 1))
        return [self.reduction(pooled[:, :, row : row + 1]).flatten(1) for row in range(rows)]


class _Cells(nn.Module):
    """The eight cells and four fusions of MGN+PTL [code], named as there."""

    def __init__(self, kind: type[BConvCell], bias: bool) -> None:
        super().__init__()
        self.bconv1 = kind(3, 16, stride=2, bias=bias)
        self.bconv2 = kind(16, 32, stride=2, bias=bias)
        self.bconv3 = kind(64, 64, bias=bias)
        self.bconv4 = kind(128, 256, stride=2, bias=bias)
        self.bconv5 = kind(256, 512, stride=2, bias=bias)
        self.bconv6 = kind(512, _CELL_WIDTH, stride=2, bias=bias)
        self.bconv7 = kind(512, _CELL_WIDTH, bias=bias)
        self.bconv8 = kind(512, _CELL_WIDTH, bias=bias)
        self.fuse1 = fusion(64 + 32, 64)
        self.fuse2 = fusion(256 + 64, 128)
        self.fuse3 = fusion(512 + 256, 256)
        self.fuse4 = fusion(1024 + 512, 512)

    def forward(self, x: Tensor, stages: list[Tensor]) -> dict[str, Tensor]:
        """Maps the image and the four stages to the cells' maps for the three branches."""
        y = self.bconv2(self.bconv1(x))
        y = self.bconv3(self.fuse1(torch.cat([y, stages[0]], dim=1)))
        y = self.bconv4(self.fuse2(torch.cat([stages[1], y], dim=1)))
        y = self.bconv5(self.fuse3(torch.cat([stages[2], y], dim=1)))
        y = self.fuse4(torch.cat([stages[3], y], dim=1))
        return {"p1": self.bconv6(y), "p2": self.bconv7(y), "p3": self.bconv8(y)}


def _branch(resnet: Any, stride: int) -> nn.Sequential:
    """The rest of layer3 and layer4, a copy of its own, with the given stride of layer4."""
    layer4 = copy.deepcopy(resnet.layer4)
    layer4[0].conv2.stride = (stride, stride)
    layer4[0].downsample[0].stride = (stride, stride)
    return nn.Sequential(nn.Sequential(*copy.deepcopy(list(resnet.layer3)[1:])), layer4)


def _resnet_places(key: str) -> list[str]:
    """Where an entry of a plain ResNet-50 stands in MGN: once in the shared part or once in each branch."""
    if shared := shared_place(key):
        return [shared]
    unit = re.match(r"layer3\.(\d+)\.(.*)", key)
    if unit:
        return [f"branches.{branch}.0.{int(unit[1]) - 1}.{unit[2]}" for branch in BRANCHES]
    if key.startswith("layer4."):
        return [f"branches.{branch}.1{key[len('layer4') :]}" for branch in BRANCHES]
    return [key]


def _check_size(x: Tensor) -> None:
    got, least = tuple(x.shape[-2:]), (2 * STRIDE, STRIDE)
    if all(side % STRIDE == 0 and side >= low for side, low in zip(got, least, strict=True)):
        return
    smaller = [max(low, side // STRIDE * STRIDE) for side, low in zip(got, least, strict=True)]
    larger = [max(low, -(-side // STRIDE) * STRIDE) for side, low in zip(got, least, strict=True)]
    raise ValueError(
        f"MGN got images of {got[0]}x{got[1]} (height x width); both sides must be multiples of {STRIDE}, the height "
        f"at least {least[0]}. Nearest sizes: {smaller[0]}x{smaller[1]} and {larger[0]}x{larger[1]}; the paper's is "
        "384x128."
    )
