"""MixBCT: one margin softmax over a batch in which old features stand in for some new ones."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..runtime.ranges import Open, Range, check_numbers
from .class_sums import add_by_class
from .compatible import (
    CompatibleLoss,
    at_least_float32,
    check_batch,
    check_finite,
    check_shapes,
    l2_normalize,
    with_bounded_slope,
)
from .margin_softmax import MARGIN, margin_softmax_loss
from .registry import register_loss

_RANGES = {
    "num_classes": Range(1, whole=True),
    "dim": Range(1, whole=True),
    "ratio": Range(0, 1, usual="the share of a batch that is replaced; 0.3 in the paper"),
    "seed": Range(-(2**63), 2**63 - 1, whole=True),
    "keep": Range(Open(0), 1, usual="the share of each class that stays"),
    **MARGIN,
}
ROWS = 1 << 12  # features handled at a time, so that the working memory does not grow with the set


def credible_mask(features: Tensor, pids: Tensor, keep: float = 0.9) -> Tensor:
    """The old features that lie near the middle of their class, as a bool (N,).

    MixBCT, arXiv 2308.06948 [code]: rows L2-normalised, then every column L2-normalised over the whole set; of each
    class the ceil(keep * n) samples nearest, in Euclidean distance, to the class mean stay; of two at the same distance
    the earlier one [ours].

    Args:
        features: (N, D) old features of all training images.
        pids: (N,) identities, any integers.
        keep: share that stays, above 0, at most 1.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, or ``keep`` out of its range.

    Example:
        >>> features = torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]])
        >>> credible_mask(features, torch.tensor([7, 7, 7]), keep=0.6)
        tensor([ True,  True, False])
    """
    check_numbers(_RANGES, keep=keep)
    check_shapes("features (N, D) and pids (N,)", features, pids)
    check_finite(torch.cat([torch.linalg.vector_norm(at_least_float32(rows), dim=1) for rows in features.split(ROWS)]))
    _, label, counts = pids.unique(return_inverse=True, return_counts=True)
    distance = _distance_to_mean(features, label, counts)
    by_distance = distance.argsort(stable=True)
    order = by_distance[label[by_distance].argsort(stable=True)]
    rank = torch.arange(len(pids), device=pids.device) - (counts.cumsum(0) - counts)[label[order]]
    mask = torch.zeros_like(label, dtype=torch.bool)
    mask[order] = rank < (keep * counts.double()).ceil()[label[order]]
    return mask


def mix_features(
    new: Tensor, old: Tensor, credible: Tensor, ratio: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Replaces some new features by the normalised old features of the same images.

    MixBCT, arXiv 2308.06948 [code]: k = min(int(ratio * B), number of credible) of the credible samples, drawn without
    replacement. The draw is seeded [ours]. Gives the mixed features (B, D), float32 or float64, and a bool (B,) that
    marks the replaced ones.

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model, of the same images; no gradient flows into them.
        credible: bool (B,), whose old feature may be used.
        ratio: share of the batch, from 0 to 1.
        generator: of the draw; torch's own if None.

    Raises:
        ValueError: shapes that do not fit, or ``ratio`` out of its range.

    Example:
        >>> new, old = torch.zeros(4, 2), torch.full((4, 2), 5.0)
        >>> mix_features(new, old, torch.tensor([True, False, True, False]), 0.5, None)[1]
        tensor([ True, False,  True, False])
    """
    check_numbers(_RANGES, ratio=ratio)
    check_batch(new, old)
    if credible.shape != new.shape[:1] or credible.dtype != torch.bool:
        raise ValueError(f"credible is a bool (B,) = ({len(new)},); got {tuple(credible.shape)} of {credible.dtype}")
    candidates = credible.nonzero().flatten()
    device = candidates.device if generator is None else generator.device
    drawn = torch.randperm(len(candidates), generator=generator, device=device)[: int(ratio * len(new))]
    replaced = torch.zeros_like(credible)
    replaced[candidates[drawn.to(candidates.device)]] = True
    return torch.where(replaced[:, None], l2_normalize(old.detach(), new), with_bounded_slope(new)), replaced


def mixbct_loss(
    new: Tensor,
    old: Tensor,
    pids: Tensor,
    weight: Tensor,
    credible: Tensor,
    ratio: float = 0.3,
    scale: float = 30.0,
    margin: float = 0.3,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Margin softmax over the mixed batch, so that the class weights have to serve new and old features.

    MixBCT, arXiv 2308.06948 [paper]; alpha and the draw [code]; s and m [ours], for faces 64 and 0.5 [code]::

        L = mean_i CE(s * margin(cos(e_i, W), y_i, m)),        e = mix(new, old)

    The scalar stands in place of the new model's own classification loss. With ``ratio`` 0, or without a credible
    sample, it is the plain :func:`margin_softmax_loss`.

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model, of the same images; no gradient flows into them.
        pids: (B,) identities from 0 to C - 1.
        weight: (C, D) of the classes.
        credible: bool (B,), see :func:`credible_mask`.
        ratio: alpha, share of the batch that is replaced.
        scale: s.
        margin: m, in radians.
        generator: of the draw.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or settings out of their range.

    Example:
        >>> eye, all_credible = torch.eye(2), torch.tensor([True, True])
        >>> mixbct_loss(-eye, eye, torch.tensor([0, 1]), eye, all_credible, ratio=1.0, scale=4.0, margin=0.5)
        tensor(0.0295)
    """
    mixed, _ = mix_features(new, old, credible, ratio, generator)
    return margin_softmax_loss(mixed, weight, pids, scale, margin)


@register_loss("mixbct")
class MixBCTLoss(CompatibleLoss):
    """Module form of :func:`mixbct_loss`; holds the class weights and the generator, whose state a checkpoint keeps.

    Args:
        num_classes: C.
        dim: D.
        credible: bool (M,) over the old model's bank, of :func:`credible_mask`; the batch then needs ``image_ids``, and
            an image without a row there (-1) is not replaced. All are credible if None, until :meth:`set_gallery`.
        ratio: alpha, share of a batch that is replaced by old features.
        scale: s, of the cosines; 64 for faces.
        margin: m, in radians; 0.5 for faces.
        seed: of the draws.
        keep: T, share of each identity's old features that are credible.
    """

    credible: Tensor | None
    ranges = _RANGES
    whole_batch = True

    def __init__(
        self,
        num_classes: int,
        dim: int,
        credible: Tensor | None = None,
        ratio: float = 0.3,
        scale: float = 30.0,
        margin: float = 0.3,
        seed: int = 0,
        keep: float = 0.9,
    ) -> None:
        super().__init__()
        self.check_settings(
            num_classes=num_classes, dim=dim, ratio=ratio, scale=scale, margin=margin, seed=seed, keep=keep
        )  # fmt: skip
        self.keep = keep
        self.ratio, self.scale, self.margin = ratio, scale, margin
        self.classes = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.normal_(self.classes, std=0.01)
        self.register_buffer("credible", credible, persistent=False)
        self.needs = () if credible is None else ("image_ids",)
        self.generator = torch.Generator().manual_seed(seed)

    def set_gallery(self, gallery: Tensor, gallery_pids: Tensor) -> None:
        """Finds the credible old features."""
        self.credible = credible_mask(gallery, gallery_pids, self.keep).to(self.classes.device)
        self.needs = ("image_ids",)

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor, image_ids: Tensor | None = None) -> Tensor:
        """Returns :func:`mixbct_loss` of the batch."""
        if self.credible is None or image_ids is None:
            credible = torch.ones_like(pids, dtype=torch.bool)
        else:
            credible = self.credible[image_ids.clamp(min=0)] & (image_ids >= 0)
        return mixbct_loss(
            new, old, pids, self.classes, credible, self.ratio, self.scale, self.margin, self.generator
        )  # fmt: skip

    def get_extra_state(self) -> Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Takes up the draws where another instance left them."""
        self.generator.set_state(state.cpu())


def _distance_to_mean(features: Tensor, label: Tensor, counts: Tensor) -> Tensor:
    """(N,) distance to the class mean after both normalisations, in float64."""
    dim = features.shape[1]
    squares = torch.zeros(dim, dtype=torch.float64, device=features.device)
    for _, rows in _normalized_blocks(features):
        squares += rows.square().sum(dim=0)
    column = squares.sqrt().clamp(min=torch.finfo(torch.float64).tiny ** 0.5)
    means = torch.zeros(len(counts), dim, dtype=torch.float64, device=features.device)
    for part, rows in _normalized_blocks(features):
        add_by_class(means, label[part], rows / column)
    means /= counts[:, None]
    blocks = [
        torch.linalg.vector_norm(rows / column - means[label[part]], dim=1)
        for part, rows in _normalized_blocks(features)
    ]
    return torch.cat(blocks)


def _normalized_blocks(features: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, max(len(features), 1), ROWS):
        part = slice(start, start + ROWS)
        yield part, l2_normalize(features[part].detach().double())
