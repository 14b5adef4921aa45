"""From a loader to descriptors."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation import Descriptors, EvaluationOptions
from ..runtime.precision import autocast
from ..runtime.progress import Progress

LONG_WORK = 10**9
"""Pairs of images from which a ranking shows its progress."""


def extract(
    forward: Callable[[Tensor], Tensor], loader: Iterable, label: str, device: torch.device, options: EvaluationOptions
) -> Descriptors:
    """Runs a loader's images through ``forward`` and collects the descriptors.

    Args:
        forward: maps images (N, 3, H, W) to descriptors (N, D), in evaluation mode and without gradient.
        loader: gives the host's batches.
        label: shown with the progress.
        device: of ``forward``.
        options: flip, precision and normalisation.

    Raises:
        ValueError: no image could be read, or a descriptor is not finite; names the images.
    """
    features, pids, camids, paths, bad = [], [], [], [], []
    progress: Progress[dict[str, Any]] = Progress(loader, label)
    for batch in progress:
        bad += batch.get("bad_images", [])
        if len(batch["pid"]) == 0:
            continue
        feature = _describe(forward, batch["img"], device, options)
        _require_finite(feature, batch["impath"], options.precision)
        features.append(feature.cpu())
        pids += batch["pid"].tolist()
        camids += batch["camid"].tolist()
        paths += list(batch["impath"])
        progress.note(images=len(batch["pid"]))
    if not features:
        raise ValueError(f"No image of {label.strip()} could be read: {', '.join(bad[:5])}")
    rows = torch.cat(features)
    if len(rows) > 1 and _all_equal(rows):
        print(
            f"All {len(rows)} descriptors of {label.strip()} are equal: their scores mean nothing. Look at the images "
            f"({paths[0]}), their normalisation, and the weights"
        )
    return Descriptors(rows, pids, camids, paths, tuple(bad))


def _all_equal(rows: Tensor) -> bool:
    """Whether rows are the same up to the rounding of batches of different sizes."""
    limit = 1e-5 * rows[0].abs().max()
    return all(bool((part - rows[0]).abs().max() <= limit) for part in rows[1:].split(1024))


def _describe(
    forward: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, options: EvaluationOptions
) -> Tensor:
    with autocast(options.precision, device):
        feature = forward(images).float()
        if options.flip:
            feature = (feature + forward(images.flip(3)).float()) / 2
    return F.normalize(feature, dim=1) if options.normalize else feature


def _require_finite(features: Tensor, paths: list[str], precision: str) -> None:
    bad = torch.nonzero(~torch.isfinite(features).all(dim=1)).flatten().tolist()
    if bad:
        remedy = "; eval.precision bfloat16 or float32 has a larger range" if precision == "float16" else ""
        named = ", ".join(paths[index] for index in bad[:5])
        raise ValueError(f"The network gives NaN or infinite descriptors for {named}{remedy}")


def long_progress(pairs: int, prefix: str = "") -> Callable[[str], Callable[[int, int], None]] | None:
    """A printer for each part of a comparison of many pairs of images; None for few pairs.

    Args:
        pairs: number of pairs.
        prefix: printed before the name of the part.
    """
    return (lambda part: progress_printer(prefix + part)) if pairs > LONG_WORK else None


def progress_printer(label: str) -> Callable[[int, int], None]:
    """Prints the progress of long work at each tenth of it."""
    printed = 0

    def show(done: int, total: int) -> None:
        nonlocal printed
        if 10 * done // total > printed:
            printed = 10 * done // total
            print(f"  {label} [{done}/{total}]", flush=True)

    return show
