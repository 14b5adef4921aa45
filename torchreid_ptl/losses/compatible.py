"""What all losses of backward-compatible training share: one call, its checks, and normalisation."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.ranges import Range, check_numbers

_CHECKED: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("checked batch", default=None)


class CompatibleLoss(nn.Module):
    """Base of the losses that tie a new model's features to an old model's.

    All are called ``loss(new, old, pids, **declared)``; what ``declared`` holds is said by ``needs`` and ``accepts``,
    so that a training loop can ask for it [ours]. Settings out of their range are a ValueError. The names in use:

    * ``camids`` (B,) cameras, ``image_ids`` (B,) the row of each image in the old model's bank;
    * ``class_means`` (C, D) mean old feature of each training identity, a row of NaN for one without old features;
    * ``old_classifier`` (C_old, D), and ``old_classes`` (C,) its row for each training identity, -1 for an unknown one;
    * ``classifier`` (C, D) the new model's own weights;
    * ``gallery`` (G, D) old features with ``gallery_pids``, ``gallery_image_ids`` and ``gallery_camids``, each (G,).

    Attributes:
        name: by which it is registered: its term is ``loss_<name>``; empty for a class that is not.
        needs: names of tensors without which the loss cannot be computed.
        accepts: names of tensors it uses when they are given.
        weight: factor of the loss beside the new model's own, where a source names one.
        ranges: of the constructor's numbers, by argument; :meth:`check_settings` and a configuration go by them.
        whole_batch: whether it wants images without an old feature too, with an old feature of zeros and ``image_ids``
            -1; else they are left out before it is called.
    """

    name: str = ""
    needs: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()
    weight: float = 1.0
    ranges: Mapping[str, Range] = MappingProxyType({})
    whole_batch: bool = False

    def check_settings(self, **numbers: Any) -> None:
        """Makes sure that arguments of the constructor are numbers in their ranges; the error names the argument."""
        check_numbers(self.ranges, **numbers)

    def set_gallery(self, gallery: Tensor, gallery_pids: Tensor) -> None:
        """Learns about old features (G, D) and identities (G,), before the first batch and when identities change."""

    def remark(self) -> str:
        """What a reader of the log has to know about the term at the start of an epoch; empty for nothing."""
        return ""

    def forward(self, new: Tensor, old: Tensor, pids: Tensor, **declared: Tensor | None) -> Tensor:
        """Checks a batch and returns its loss.

        Args:
            new: (B, D) features of the new model.
            old: (B, D) features of the old model, of the same images; no gradient flows into them.
            pids: (B,) identities.
            **declared: tensors named in ``needs`` and ``accepts``; None is the same as not given.

        Returns:
            A scalar, float32 or float64.

        Raises:
            ValueError: shapes or dimensions that do not fit, old features that are not finite, a tensor that is missing
                or was not asked for.
        """
        given = {name: value for name, value in declared.items() if value is not None}
        self._check_names(given)
        old = old.detach()
        check_batch(new, old, pids)
        token = _CHECKED.set((new, old))  # the functions that compute_loss calls need not look at them again
        try:
            return self.compute_loss(new, old, pids, **given)
        finally:
            _CHECKED.reset(token)

    def compute_loss(self, *batch: Any, **given: Any) -> Tensor:
        """The loss of new, old and pids, which were checked, and what was declared."""
        raise NotImplementedError

    def _check_names(self, given: Mapping[str, Tensor]) -> None:
        missing = [name for name in self.needs if name not in given]
        foreign = [name for name in given if name not in (*self.needs, *self.accepts)]
        if missing or foreign:
            lists = (self.needs, self.accepts, missing, foreign)
            needs, accepts, lost, idle = (", ".join(names) or "nothing" for names in lists)
            raise ValueError(
                f"{type(self).__name__} needs {needs} and accepts {accepts} beside new, old and pids; missing: {lost}; "
                f"given and not used: {idle}"
            )


def check_batch(new: Tensor, old: Tensor, pids: Tensor | None = None) -> None:
    """Makes sure that new and old features (B, D), and pids (B,), are comparable; looks once at a module's batch."""
    checked = _CHECKED.get()
    if checked is not None and checked[0] is new and checked[1] is old:
        return
    check_dimensions(new, old)
    if pids is None:
        check_shapes("new features (B, D) and old features (B, D)", new, old)
    else:
        check_shapes("new features (B, D), old features (B, D) and pids (B,)", new, old, pids)
    check_finite(old)


def check_shapes(expected: str, *tensors: Tensor) -> None:
    """Makes sure of shapes such as ``"features (N, D) and pids (N,)"``, where a letter stands for one size."""
    sizes: dict[str, int] = {}
    for letters, tensor in zip(re.findall(r"\(([A-Z, ]+)\)", expected), tensors, strict=True):
        names = re.findall("[A-Z]", letters)
        fit = tensor.dim() == len(names)
        if not fit or any(sizes.setdefault(name, size) != size for name, size in zip(names, tensor.shape, strict=True)):
            *shapes, last = (str(tuple(each.shape)) for each in tensors)
            raise ValueError(f"Expected {expected}; got {', '.join(shapes)} and {last}")


def check_dimensions(new: Tensor, old: Tensor) -> None:
    """Makes sure that new and old features have one dimension; the error names both and the remedies."""
    if new.dim() == old.dim() == 2 and new.shape[1] != old.shape[1]:
        raise ValueError(
            f"New features have {new.shape[1]} dimensions and old ones {old.shape[1]}. Give the new model an embedding "
            f"head of {old.shape[1]} dimensions, or truncate or zero-pad one of the two by a declared rule"
        )


def check_finite(old: Tensor, name: str = "old features") -> None:
    """Makes sure that every row of (N, D) or every number of (N,) is finite; the error says how many are not."""
    finite = old.isfinite()
    rows = finite.all(dim=1) if old.dim() == 2 else finite
    if not rows.all():
        raise ValueError(
            f"{int((~rows).sum())} of {len(rows)} rows of the {name} are not finite; compute them again, or leave "
            "their images out"
        )


def at_least_float32(x: Tensor, like: Tensor | None = None) -> Tensor:
    """Returns ``x`` in float64 if ``like``, by default itself, is of it, and in float32 if not."""
    return x.double() if (x if like is None else like).dtype == torch.float64 else x.float()


def with_bounded_slope(x: Tensor, like: Tensor | None = None) -> Tensor:
    """``x`` (N, D) as of :func:`at_least_float32`; rows whose direction has too large a slope get no gradient.

    The slope of a row's direction is 1 / norm. It has to fit into the dtype of ``x`` with a factor of 64 to spare, and
    a norm below the resolution of the dtype of the computation is that of a row of zeros [ours].
    """
    rows = at_least_float32(x, like)
    if not (rows.requires_grad and torch.is_grad_enabled()):
        return rows
    least = max(64 / torch.finfo(x.dtype).max, torch.finfo(rows.dtype).eps)
    fixed = rows.detach()
    return torch.where(torch.linalg.vector_norm(fixed, dim=1, keepdim=True) >= least, rows, fixed)


def l2_normalize(x: Tensor, like: Tensor | None = None) -> Tensor:
    """Rows of ``x`` (N, D) with L2 norm 1, in the dtype :func:`at_least_float32` gives; a row of zeros stays.

    Rows of nearly zero length have a direction but no gradient, see :func:`with_bounded_slope`.
    """
    rows = with_bounded_slope(x, like)
    return F.normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny ** 0.5)  # squares reach tiny
