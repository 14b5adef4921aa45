"""Training without identity labels: clusters of the training images, computed before each epoch."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.in_order import all_training_images, in_order
from ..data.pseudo_labels import OUTLIER, check_clusters, pseudo_labels
from ..evaluation import Descriptors, EvaluationOptions
from ..evaluation.arrays import Integers
from ..losses.class_sums import add_by_class
from ..losses.compatible import l2_normalize
from ..runtime.ranges import Open, Range, check_numbers
from ..runtime.weights import unwrap
from .feature_objective import descriptor_dim
from .frozen import Preprocessing
from .inference import extract, long_progress
from .modes import evaluating
from .objectives import Objective, Terms
from .outputs import Outputs

_RANGES = {
    "eps": Range(Open(0), Open(1)),
    **dict.fromkeys(("min_samples", "k1", "k2"), Range(1, whole=True)),
    "temperature": Range(1e-4, 100),
    "momentum": Range(0, Open(1)),
}


class ClusterObjective(Objective):
    r"""Cross-entropy over cluster centres, with momentum updates of the centres.

    Cluster Contrast (Dai et al., arXiv 2103.11568) [paper] in outline, with other values and details [ours].
    Before each epoch descriptors of all training images are computed as in a test, and clustered; images in no cluster
    are excluded from the epoch. With f a feature of length 1, k its cluster, c the centres of all clusters
    (means of their features) and t the temperature::

        loss = -log(exp(f.c_k / t) / sum_j exp(f.c_j / t))
        c_k <- normalise(m c_k + (1 - m) mean of the batch's f of k)

    The identities of the data set and the model's classifier are not used. Centres and clusters follow from the
    weights, so a checkpoint does not contain them.

    Args:
        eps: see :func:`~torchreid_ptl.data.pseudo_labels.pseudo_labels`, as ``min_samples``, ``k1`` and ``k2``.
        min_samples: images that make a cluster.
        k1: neighbours of an image.
        k2: neighbours whose codes are averaged.
        temperature: t, from 0.0001.
        momentum: m, from 0 (the mean of the last batch) to below 1.

    Raises:
        ValueError: a setting out of range.
    """

    model_loss = "triplet"
    relabels = True

    def __init__(
        self,
        eps: float = 0.6,
        min_samples: int = 4,
        k1: int = 30,
        k2: int = 6,
        temperature: float = 0.05,
        momentum: float = 0.2,
    ) -> None:
        super().__init__()
        check_numbers(
            _RANGES, eps=eps, min_samples=min_samples, k1=k1, k2=k2, temperature=temperature, momentum=momentum
        )
        self.clustering: dict[str, Any] = {"eps": eps, "min_samples": min_samples, "k1": k1, "k2": k2}
        self.temperature, self.momentum = temperature, momentum
        self.centres: Tensor
        self.register_buffer("centres", torch.empty(0), persistent=False)

    def begin_epoch(self, engine: Any) -> None:
        """Clusters the training images, gives the data manager their labels and computes the centres.

        Raises:
            ValueError: fewer than two clusters or too few images in them for a batch, a data manager that takes no
                labels, or a model whose training features are not its descriptors.
        """
        self._prepare(engine)
        found = self._describe(engine)
        features = torch.as_tensor(found.features)
        printer = long_progress(len(features) ** 2)
        progress = printer and printer("neighbours")
        labels = pseudo_labels(features.to(engine.device), **self.clustering, progress=progress)
        check_clusters(labels)
        inside = int((labels >= 0).sum())
        print(
            f"epoch {engine.epoch + 1}: {labels.max() + 1} clusters, {inside} images, {len(labels) - inside} outliers "
            "excluded",
            flush=True,
        )
        engine.datamanager.relabel(_for_all_images(labels, engine.datamanager, found))
        self.centres = _centres(features, torch.from_numpy(labels)).to(engine.device)

    def forward(self, outputs: Outputs, pids: Tensor, reference: Any = None) -> Terms:
        """Returns the term ``loss_cluster``; in training the centres of the batch's clusters move afterwards."""
        features = _unit(outputs)
        terms = {"loss_cluster": F.cross_entropy(features @ self.centres.T / self.temperature, pids)}
        if self.training:
            self.centres = self._moved(features.detach(), pids)  # a new tensor: the gradient needs the old one
        return terms

    def accuracy(self, outputs: Outputs, pids: Tensor) -> Tensor:
        """Share of the batch, in percent, whose nearest centre is that of its own cluster."""
        nearest = (_unit(outputs).detach() @ self.centres.T).argmax(dim=1)
        return 100.0 * (nearest == pids).float().mean()

    @torch.no_grad()
    def _moved(self, features: Tensor, pids: Tensor) -> Tensor:
        seen, place = pids.unique(return_inverse=True)
        members = F.one_hot(place, len(seen)).T.to(features)  # a product has a fixed order of summation on every device
        means = members @ features / members.sum(dim=1, keepdim=True)
        moved = self.centres.clone()
        moved[seen] = F.normalize(self.momentum * self.centres[seen] + (1 - self.momentum) * means)
        return moved

    def _prepare(self, engine: Any) -> None:
        """Checks model and data manager before long work starts; an MGN gives all its parts afterwards."""
        if not hasattr(engine.datamanager, "relabel"):
            raise ValueError(
                f"ClusterObjective gives the training images labels, which {type(engine.datamanager).__module__}."
                f"{type(engine.datamanager).__name__} does not take; use torchreid_ptl.data.manager.ImageDataManager"
            )
        plain: Any = unwrap(engine.model)
        if getattr(plain, "triplet_parts", None):
            plain.all_parts = True
        if len(self.centres):  # checked in an earlier epoch
            return
        style = Preprocessing.of(engine.datamanager)
        blank = torch.zeros(1, 3, style.height, style.width, device=engine.device)
        with evaluating(engine.model), torch.no_grad():
            described = engine.extract_features(blank).shape[1]
        trained = descriptor_dim(engine.model, style)
        if trained != described:
            raise ValueError(
                f"{type(plain).__name__} has training features of {trained} dimensions and descriptors of {described}; "
                "clusters need them to be the same. Choose another model"
            )

    @staticmethod
    def _describe(engine: Any) -> Descriptors:
        def forward(images: Tensor) -> Tensor:
            return engine.extract_features(images.to(engine.device, memory_format=engine.memory_format))

        options = EvaluationOptions(normalize=True, precision=engine.precision)
        with evaluating(engine.model), torch.no_grad():
            found = extract(forward, in_order(engine.datamanager), "training images", engine.device, options)
        engine.bad_images += found.bad_images
        return found


def _unit(outputs: Outputs) -> Tensor:
    return l2_normalize(torch.cat(outputs.features, dim=1)).float()


def _centres(features: Tensor, labels: Tensor) -> Tensor:
    """Mean of the features of each cluster, L2-normalised; on the CPU, with a fixed order of summation."""
    inside = labels >= 0
    sums = features.new_zeros(int(labels.max()) + 1, features.shape[1]).double()
    add_by_class(sums, labels[inside], features[inside].double())
    return F.normalize(sums).float()


def _for_all_images(labels: Integers, datamanager: Any, found: Descriptors) -> Integers:
    """Labels of all training images, -1 for those that could not be read."""
    bad = set(found.bad_images)
    read = np.array([item[0] not in bad for item in all_training_images(datamanager).data])
    named = np.full(len(read), OUTLIER, np.int64)
    named[read] = labels
    return named
