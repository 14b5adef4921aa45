"""Neighbour context agents (NCA): old centres of similar identities beside the batch."""

import torch
from torch import Tensor

from .compatible import at_least_float32, l2_normalize


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
