"""The number of batches in an epoch: the host's samplers estimate it, so an epoch is drawn before it is counted."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import RandomSampler, Sampler, SequentialSampler

from ..runtime.seeding import random_state_kept

_EXACT = (RandomSampler, SequentialSampler)


class _Drawn(Sampler[int]):
    """A sampler whose next pass may be drawn beforehand; its length is then that of this pass."""

    def __init__(self, sampler: Sampler[int]) -> None:
        self.sampler = sampler
        self.order: list[int] | None = None

    def __iter__(self) -> Iterator[int]:
        order, self.order = self.order, None
        return iter(self.sampler if order is None else order)

    def __len__(self) -> int:
        return len(self.sampler if self.order is None else self.order)  # type: ignore[arg-type]


def draw_batches(loader: Any) -> int:
    """Draws the next pass of a loader; returns its number of batches.

    Args:
        loader: of the host's data manager or this package's; one without a batch sampler has the length that it says.
    """
    batches: Any = getattr(loader, "batch_sampler", None)
    sampler = getattr(batches, "sampler", None)
    if sampler is None or isinstance(sampler, _EXACT):
        return len(loader)
    if not isinstance(sampler, _Drawn):
        batches.sampler = sampler = _Drawn(sampler)
    sampler.order = list(sampler.sampler)
    return len(batches)


def count_batches(loader: Any) -> int:
    """Batches in one pass drawn for this alone: another one may have some more or fewer, but the random state stays."""
    with random_state_kept():
        count = draw_batches(loader)
    drawn = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    if isinstance(drawn, _Drawn):
        drawn.order = None
    return count
