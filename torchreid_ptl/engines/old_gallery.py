"""Old features of the training set, as inputs of the compatible losses."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..data.in_order import root_of, training_images, training_names
from ..data.old_features import OldFeatures, names_of
from ..evaluation.descriptors import DIMENSIONS, common_dimension
from ..losses.class_sums import add_by_class
from ..losses.compatible import l2_normalize
from ..runtime.errors import ArgumentError


class _OldBatch(NamedTuple):
    """Old features, rows and cameras of a batch.

    Attributes:
        features: (B, D); zeros for an image without an old feature.
        image_ids: (B,) row in :attr:`OldGallery.gallery`, -1 for an image without one.
        camids: (B,).
    """

    features: Tensor
    image_ids: Tensor
    camids: Tensor


class OldGallery:
    """Old features of the training images with their identities and cameras, and class means.

    Args:
        bank: old features by the images' names.
        datamanager: of the training; images that the bank lacks have no old feature.
        classifier: (C_old, D) weights of the old classifier, if they are known.
        classes: (C,) its row for each training identity, -1 for an unknown one.
        device: of the losses.

    Attributes:
        gallery_pids: (G,) their identities.
        gallery_camids: (G,) their cameras.

    Raises:
        ValueError: no training image has an old feature, or a classifier without its rows or with others.
    """

    def __init__(
        self,
        bank: OldFeatures,
        datamanager: Any,
        classifier: Tensor | None = None,
        classes: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.fingerprint, self.device = bank.fingerprint, torch.device(device)
        self._state = torch.empty(0, 3, dtype=torch.long)
        self.num_classes = 0  # never shrinks: the new model's classifier does not
        if (classifier is None) != (classes is None):
            raise ValueError("An old classifier needs its row for each training identity (classes), and the reverse")
        self.old_classifier = None if classifier is None else classifier.detach().float().to(device)
        self.old_classes = None if classes is None else classes.to(device)
        if classifier is not None and classes is not None:  # part of the training, not of the features
            self.fingerprint = _digest(bank.fingerprint, classifier, classes)
        self._class_of: Tensor | None = None
        self._root = root_of(datamanager)
        self._bank, self._features = bank, bank.features
        self.update_labels(datamanager)
        missing = len(training_images(datamanager)) - len(self.gallery)
        if missing:
            print(f"{missing} training images have no old feature and are not in the compatible losses")

    @property
    def dim(self) -> int:
        """D."""
        return self._features.shape[1]

    def update_labels(self, datamanager: Any) -> bool:
        """Takes the present images and identities of the training; returns whether anything changed.

        Raises:
            ValueError: no training image has an old feature.
        """
        images = training_images(datamanager)
        names = training_names(datamanager, self._root)
        rows = self._bank.rows(names)
        held = rows >= 0
        if not held.any():
            raise ValueError(
                f"None of the {len(names)} training images has an old feature: {names[0]!r} is needed, and the bank "
                f"names {self._bank.names[0]!r} for example. Give the old features of these images"
            )
        labels = torch.tensor([image[1:3] for image in images])[held]
        state = torch.cat([rows[held, None], labels], dim=1)
        if torch.equal(state, self._state):
            return False
        self._state = state
        self._row = {names[index]: row for row, index in enumerate(held.nonzero().flatten().tolist())}
        self.gallery_pids, self.gallery_camids = labels.to(self.device).unbind(1)
        self.num_classes = max(self.num_classes, 1 + max(image[1] for image in images))
        self._follow_classes()
        self._forget("gallery", "class_means")
        return True

    def resize(self, dim: int, rule: str = "error") -> int:
        """Converts the old features to the dimension of the comparison.

        Args:
            dim: of the new model's descriptor.
            rule: ``'error'``, ``'truncate'`` (the first dimensions of the longer side) or ``'pad'`` (zeros behind the
                shorter side).

        Returns:
            The dimension of the comparison; new descriptors are cut or padded to it too.

        Raises:
            ValueError: dimensions differ under ``'error'``; names both and the remedies.
        """
        common = compared_dim(dim, self.dim, rule)
        if common == self.dim:
            return common
        self._features = resized(self._features, common)
        if self.old_classifier is not None:
            self.old_classifier = resized(self.old_classifier, common)
        self._forget("gallery", "class_means")
        return common

    def batch(self, data: Mapping[str, Any]) -> _OldBatch:
        """The old features of a loader's batch."""
        names = names_of(data["impath"], self._root)
        ids = torch.tensor([self._row.get(name, -1) for name in names], device=self.device)
        features = self.gallery[ids.clamp(min=0)].masked_fill(ids[:, None] < 0, 0.0)
        return _OldBatch(features, ids, data["camid"].to(self.device))

    @functools.cached_property
    def gallery(self) -> Tensor:
        """(G, D) old features of the training images that have one."""
        rows = self._state[:, 0]
        every = len(rows) == len(self._features) and bool((rows == torch.arange(len(rows))).all())
        return (self._features if every else self._features[rows]).to(self.device)

    @property
    def gallery_image_ids(self) -> Tensor:
        """(G,) the row of each."""
        return torch.arange(len(self.gallery), device=self.device)

    @functools.cached_property
    def class_means(self) -> Tensor:
        """(C, D) mean of the normalised old features of each identity [ours], NaN for one without."""
        sums = torch.zeros(self.num_classes, self.dim, device=self.device)
        counts = torch.zeros(self.num_classes, device=self.device)
        for start in range(0, len(self.gallery), 1 << 14):
            part = slice(start, start + (1 << 14))
            pids = self.gallery_pids[part]
            add_by_class(sums, pids, l2_normalize(self.gallery[part]).float())
            counts += pids.bincount(minlength=self.num_classes)
        return sums / counts[:, None]  # 0 / 0 is NaN

    def _follow_classes(self) -> None:
        """With new identity labels, the old class of each is that of its images, if it is the same for all."""
        rows, pids = self._state[:, 0], self._state[:, 1]
        if self.old_classes is None:
            return
        if self._class_of is None:  # of each row of the bank
            _check_classes(self.old_classes, self.num_classes, self.old_classifier)
            self._class_of = torch.full((len(self._bank),), -1)
            self._class_of[rows] = self.old_classes.cpu()[pids]
            return
        found = torch.full((self.num_classes,), -1)
        for pid in pids.unique().tolist():
            classes = self._class_of[rows[pids == pid]].unique()
            found[pid] = classes[0] if len(classes) == 1 else -1
        self.old_classes = found.to(self.device)

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)


def _check_classes(classes: Tensor, num_classes: int, classifier: Tensor | None) -> None:
    known = 0 if classifier is None else len(classifier)
    if classes.shape != (num_classes,) or int(classes.max()) >= known:
        raise ValueError(
            f"classes must be ({num_classes},), a row of the {known} of the old classifier for each training identity, "
            f"-1 for an unknown one; got {tuple(classes.shape)}, up to {int(classes.max())}"
        )


def _digest(fingerprint: str, *tensors: Tensor) -> str:
    parts = [tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors]
    return hashlib.sha256(b"".join([fingerprint.encode(), *parts])).hexdigest()[:16]


def compared_dim(new: int, old: int, rule: str = "error") -> int:
    """The dimension in which new and old descriptors are compared.

    Args:
        new: dimension of the new model's descriptor.
        old: dimension of the old one's.
        rule: as for :meth:`OldGallery.resize`.

    Raises:
        ValueError: they differ under ``'error'``, or there is no such rule; names both and the remedies.
    """
    if rule not in DIMENSIONS:
        raise ValueError(f"dimensions is {rule!r}; allowed: {', '.join(DIMENSIONS)}")
    if new != old and rule == "error":
        raise ArgumentError(
            f"New features have {new} dimensions and old ones {old}. Give the new model an embedding head of {old} "
            "dimensions, or compare by a declared rule: {dimensions} truncate (first "
            "dimensions of the longer) or pad (zeros behind the shorter)"
        )
    return common_dimension(new, old, rule)


def resized(features: Tensor, dim: int) -> Tensor:
    """(N, D) cut to the first ``dim`` dimensions, or with zeros behind."""
    lacking = dim - features.shape[1]
    return functional.pad(features, (0, lacking)) if lacking > 0 else features[:, :dim]
