"""Ranking-based compatible loss (RBCL) with dynamic gradient reactivation and neighbour context agents."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.ranges import Range, check_numbers
from .compatible import (
    CompatibleLoss,
    at_least_float32,
    check_dimensions,
    check_finite,
    check_shapes,
    l2_normalize,
)
from .ranking import LIMITS, Kind, Reactivation, ranking_loss
from .registry import register_loss

Gallery = Literal["batch", "nca", "full"]
_RANGES = {
    "tau": Range(1e-8, 100, usual="0.01 by default"),
    "neighbours": Range(1, 10_000, whole=True, usual="10 by default"),
    **LIMITS,
}
OF_BANK = ("gallery", "gallery_pids", "gallery_image_ids")


def rbcl_loss(
    query: Tensor,
    gallery: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    tau: float = 0.01,
    dgr: Kind = "none",
    same_image: Tensor | None = None,
    *,
    query_camids: Tensor | None = None,
    gallery_camids: Tensor | None = None,
    lift_limit: float = 0.1,
    restore_from: float = 0.03,
) -> Tensor:
    r"""One minus the smoothed average precision of new queries against a gallery of old features.

    After Dynamic Gradient Reactivation for Backward Compatible Person Re-identification, arXiv 2207.05658, which
    optimises the ranking directly [paper]; the formula, tau and both kinds of reactivation are [ours], the smoothing is
    that of Brown et al., Smooth-AP, 2020. With cosines s of a query, its positives P, its negatives N, and
    :math:`\sigma_\tau(d) = 1 / (1 + e^{-d / \tau})`::

        R_i = 1 + sum_{k in P, k != i} sigma_tau(s_k - s_i)        N_i = sum_{j in N} sigma_tau(s_j - s_i)
        L = 1 - mean_q mean_{i in P_q} R_i / (R_i + N_i)

    The sharp sigmoid has hardly a slope beyond |d| = 3 tau. Reactivation, of negatives only, sg a stop of gradient:

    * ``lift``: sigma_tau(d_ij + c) with c = sg(clip(-max_j d_ij, 0, M)): once the positive leads, by M at most, the
      hardest negative stays on the steepest point; the order of negatives is kept; no change while it is beaten;
    * ``restore``: the value unchanged, and for d > m the slope held at that of m.

    Queries without a positive are left out; when all are, the loss is zero. Memory: a few matrices (B, G), whatever the
    number of positives. A scalar from 0 to 1, computed in float32 (float64 stays) outside autocast; there is no second
    derivative.

    Args:
        query: (B, D) new features.
        gallery: (G, D) old features; no gradient flows into them.
        query_pids: (B,) identities.
        gallery_pids: (G,) identities.
        tau: temperature, in cosine.
        dgr: ``'none'``, ``'lift'`` or ``'restore'``.
        same_image: what is left out of a query's ranking because it is the same image: bool (B, G), or (B,) the column
            of each query's own image, -1 for none.
        query_camids: (B,) cameras; with ``gallery_camids``, a positive must come from another camera.
        gallery_camids: (G,) cameras.
        lift_limit: M, in cosine, 0.05 to 0.1.
        restore_from: m, in cosine.

    Raises:
        ValueError: shapes that do not fit, a gallery that is not finite, or settings out of their range.

    Example:
        >>> gallery, pids = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
        >>> rbcl_loss(torch.tensor([[0.6, 0.8]]), gallery, torch.tensor([0]), pids)  # its positive comes second
        tensor(0.5000)
    """
    reactivation = Reactivation(dgr, lift_limit, restore_from)
    check_numbers(_RANGES, tau=tau)
    check_dimensions(query, gallery)
    expected = "query (B, D), gallery (G, D), query_pids (B,) and gallery_pids (G,)"
    check_shapes(expected, query, gallery, query_pids, gallery_pids)
    if (query_camids is None) != (gallery_camids is None):
        raise ValueError("Give both cameras or none: query_camids (B,) and gallery_camids (G,)")
    same_person = query_pids[:, None] == gallery_pids[None, :]
    junk = _junk(same_image, same_person)
    negative = ~(same_person | junk)
    if query_camids is not None and gallery_camids is not None:
        junk = junk | (query_camids[:, None] == gallery_camids[None, :])
    with torch.autocast(query.device.type, enabled=False):
        return ranking_loss(_cosines(query, gallery), same_person & ~junk, negative, tau, reactivation)


@register_loss("rbcl")
class RBCLLoss(CompatibleLoss):
    """Module form of :func:`rbcl_loss`, with the gallery it ranks against.

    Args:
        gallery: old features to rank: those of the batch, with the nearest centres too (nca), or of the training set
            (full), the quantity the others approximate.
        tau: temperature, in cosine.
        dgr: reactivation of gradients that vanish: ``'none'``, ``'lift'`` or ``'restore'``.
        other_camera: whether a positive must come from another camera.
        neighbours: K, centres nearest to each identity of the batch, with gallery ``'nca'``.
        lift_limit: M, the largest lead that ``'lift'`` makes up for, in cosine.
        restore_from: m, the lead from which ``'restore'`` holds the slope, in cosine.
    """

    weight = 5.0
    ranges = _RANGES

    def __init__(
        self,
        gallery: Gallery = "full",
        tau: float = 0.01,
        dgr: Kind = "none",
        other_camera: bool = False,
        neighbours: int = 10,
        lift_limit: float = 0.1,
        restore_from: float = 0.03,
    ) -> None:
        super().__init__()
        Reactivation(dgr, lift_limit, restore_from)  # makes sure of them
        self.check_settings(tau=tau, neighbours=neighbours)
        if gallery not in get_args(Gallery):
            raise ValueError(f"gallery is {gallery!r}; it is one of {', '.join(get_args(Gallery))}")
        self.gallery, self.tau, self.dgr, self.neighbours = gallery, tau, dgr, neighbours
        self.lift_limit, self.restore_from = lift_limit, restore_from
        cameras = ("camids", "gallery_camids") if gallery == "full" else ("camids",)
        of_gallery = {"batch": (), "nca": ("class_means",), "full": ("image_ids", *OF_BANK)}[gallery]
        self._table: tuple[Tensor, Tensor] | None = None
        self.needs = (*of_gallery, *(cameras if other_camera else ()))
        self.accepts = {"batch": ("image_ids",), "nca": ("image_ids",), "full": ()}[gallery]

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor, **given: Tensor) -> Tensor:
        """Returns :func:`rbcl_loss` of the batch; an image without ``image_ids`` is like no other."""
        each = torch.arange(len(pids), device=pids.device)
        ids = given.get("image_ids", each)
        ids = ids.where(ids >= 0, -1 - each)
        camids = given.get("camids")
        if self.gallery == "full":
            gallery, gallery_pids, gallery_ids = (given[name] for name in OF_BANK)
            gallery_camids = given.get("gallery_camids")
        else:
            gallery, gallery_pids, gallery_ids, gallery_camids = old, pids, ids, camids
        left_out = ids[:, None] == gallery_ids[None, :]
        if self.gallery == "nca":
            means = given["class_means"]
            gallery, gallery_pids, is_agent = agent_gallery(old, pids, means, self._nearest(means))
            agents = len(gallery) - len(old)
            left_out = F.pad(left_out, (0, agents)) | (is_agent & (pids[:, None] == gallery_pids[None, :]))
            gallery_camids = None if camids is None else F.pad(camids, (0, agents), value=-1)
        return rbcl_loss(
            new, gallery, pids, gallery_pids, self.tau, self.dgr, left_out, query_camids=camids,
            gallery_camids=gallery_camids, lift_limit=self.lift_limit, restore_from=self.restore_from,
        )  # fmt: skip

    def _nearest(self, class_means: Tensor) -> Tensor:
        """(C, K) nearest centres; worked out once for a tensor of class means, not in each step."""
        if self._table is None or self._table[0] is not class_means:
            self._table = class_means, nearest_centres(class_means, self.neighbours)
        return self._table[1]


def nearest_centres(centres: Tensor, k: int = 10, rows: int = 1024) -> Tensor:
    """Identities (C, k) with the most similar centres (C, D), nearest first, by cosine; -1 where there are fewer.

    Agents of Dynamic Gradient Reactivation, arXiv 2207.05658; K = 10 and the cosine are [ours]. A row of NaN is an
    identity without old features, which has no neighbours. Computed once for a training set, in blocks of ``rows``, so
    that memory stays bounded.

    Example:
        >>> nearest_centres(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.2]]), k=1).flatten()
        tensor([2, 2, 0])
    """
    if k < 1 or centres.dim() != 2:
        raise ValueError(
            f"neighbours is {k} and the centres are {tuple(centres.shape)}; wanted are 1 or more of centres (C, D)"
        )
    known = centres.isfinite().all(dim=1)
    points = l2_normalize(centres.detach().nan_to_num(0.0, 0.0, 0.0))
    every = torch.arange(len(centres), device=centres.device)
    found = every.new_full((len(every), k), -1)
    for part in every.split(rows):
        cosines = (points[part] @ points.T).masked_fill_(~(known & known[part, None]), -torch.inf)
        cosines.scatter_(1, part[:, None], -torch.inf)
        best, identity = cosines.topk(min(k, len(centres)), dim=1)
        found[part, : best.shape[1]] = identity.where(best > -torch.inf, -1)
    return found


def agent_gallery(old: Tensor, pids: Tensor, centres: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gallery of a batch: its old features (B, D), and the centres nearest to the identities of the batch.

    Features (B + A, D), identities (B + A,) and a bool (B + A,) that marks the A agents, each of which is there once.
    An agent is a negative of other identities and never a positive: its identity may be in the batch too.

    Example:
        >>> old, centres = torch.eye(3)[:2], torch.eye(3) + 0.1
        >>> agent_gallery(old, torch.tensor([0, 1]), centres, nearest_centres(centres, k=1))[2]
        tensor([False, False,  True,  True])
    """
    near = neighbours[pids.unique()]
    agents = near[near >= 0].unique()
    gallery = torch.cat([at_least_float32(old), at_least_float32(centres.detach()[agents], old)])
    is_agent = torch.arange(len(gallery), device=old.device) >= len(old)
    return gallery, torch.cat([pids, agents.to(pids)]), is_agent


def _cosines(query: Tensor, gallery: Tensor) -> Tensor:
    """(B, G); the gallery is divided by its norms afterwards, since a normalised copy of it could be large."""
    points = at_least_float32(gallery.detach(), query)
    norms = torch.linalg.vector_norm(points, dim=1)
    check_finite(norms, "gallery")
    return (l2_normalize(query) @ points.T) / norms.clamp(min=torch.finfo(norms.dtype).tiny ** 0.5)


def _junk(same_image: Tensor | None, same_person: Tensor) -> Tensor:
    if same_image is None:
        return torch.zeros_like(same_person)
    if same_image.shape == same_person.shape[:1] and same_image.dtype != torch.bool:
        columns = torch.arange(same_person.shape[1], device=same_person.device)
        return same_image[:, None] == columns[None, :]
    if same_image.shape != same_person.shape or same_image.dtype != torch.bool:
        raise ValueError(
            f"same_image is a bool (B, G) = {tuple(same_person.shape)}, or (B,) columns with -1 for none; got "
            f"{tuple(same_image.shape)} of {same_image.dtype}"
        )
    return same_image
