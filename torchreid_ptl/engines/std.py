"""Student-Teacher Distillation: its objective and its engine."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..losses.std import STD, feature_distance
from ..runtime.errors import ArgumentError
from ..runtime.ranges import check_numbers
from ..runtime.seeding import random_state_kept
from .engine import ImagePTLEngine
from .feature_objective import FeatureObjective, descriptor_dim, unreachable
from .feature_table import FeatureTable, tabulate
from .frozen import FrozenModel, Preprocessing
from .objectives import Objective, SoftmaxObjective, Terms
from .outputs import Outputs


class STDObjective(FeatureObjective):
    """The student's own objective, and the distance of its feature to the teacher's.

    Progressive Transfer Learning, arXiv 1908.02492, Eq. 4 [paper]: (1 - lambda) cross-entropy + lambda L1. Another
    objective may replace the cross-entropy, MGN's for example [ours]. A student with several features (the eight parts
    of MGN) is compared by all of them, concatenated as in its descriptor. With ``lambda_`` 0 the teacher is not used
    and the terms are the plain objective's; with 1 no label is used.

    Args:
        teacher: the fine-tuned PTL model.
        lambda_: weight of the distillation, from 0 to 1.
        base: the student's own objective; :class:`SoftmaxObjective` if None.
        projection: maps the student's feature to the teacher's dimension; :func:`projection_of` makes one. Its
            parameters belong in the optimiser; it is no part of the student.
        table: the teacher's features of all training images, so that it is not run in each step.

    Raises:
        ValueError: ``lambda_`` outside [0, 1].
    """

    def __init__(
        self,
        teacher: FrozenModel,
        lambda_: float = 0.8,
        base: Objective | None = None,
        projection: nn.Module | None = None,
        table: FeatureTable | None = None,
    ) -> None:
        super().__init__(base or SoftmaxObjective())
        check_numbers(STD, lambda_=lambda_)
        self.teacher, self.lambda_, self.table = teacher, lambda_, table
        self.projection = projection
        self._compared = False

    @classmethod
    def build(
        cls,
        student: nn.Module,
        teacher: nn.Module | FrozenModel,
        datamanager: Any,
        lambda_: float = 0.8,
        base: Objective | None = None,
        projection: nn.Module | str | None = None,
        *,
        cache: bool = False,
        precision: str = "float32",
        channels_last: bool = False,
    ) -> "STDObjective":
        """Builds the objective.

        Args:
            student: on its device, built with ``loss='triplet'`` so that it gives features.
            teacher: any model of the host or the plugin, with its weights; or a :class:`FrozenModel`, for one
                with images of another size or normalisation. It is always in evaluation mode.
            datamanager: of the student's images.
            lambda_: weight of the distillation, from 0 to 1.
            base: the student's own objective; :class:`SoftmaxObjective` if None.
            projection: see :class:`STDObjective`; ``'linear'`` makes one.
            cache: compute the teacher's features of all training images once; only without augmentation.
            precision: of the teacher's forward pass for the cache, as in training.
            channels_last: layout of the teacher's maps.

        Raises:
            ValueError: ``lambda_`` outside [0, 1], a student without features, dimensions that differ, a teacher that
                receives other images, an unknown ``projection``, or ``cache`` with augmentation.
        """
        style, device = Preprocessing.of(datamanager), next(student.parameters()).device
        if isinstance(teacher, nn.Module):
            teacher = FrozenModel(teacher, style, style, device, channels_last)
        elif teacher.receives != style:
            raise ValueError(
                f"The teacher receives images as {teacher.receives}, and the student's come as {style}. Make it with "
                "FrozenModel(network, expects, Preprocessing.of(datamanager))"
            )
        if isinstance(projection, str):
            if projection != "linear":
                raise ValueError(f"projection is {projection!r}; it is 'linear', a module or None")
            projection = projection_of(student, teacher, style)
        objective = cls(teacher, lambda_, base, projection)
        objective.prepare(student, style)
        if cache and lambda_ > 0:
            objective.table = tabulate(teacher, datamanager, "teacher", precision)
        return objective

    def prepare(self, student: nn.Module, style: Preprocessing) -> None:
        """Checks the student against the teacher, before the first step.

        Args:
            student: the model to be trained; an MGN gives all its parts afterwards.
            style: of its images.

        Raises:
            ValueError: it gives no features, or of another dimension than the teacher's.
        """
        super().prepare(student, style)
        if self.projection is None and self.dim != self.teacher.dim:
            raise ArgumentError(
                f"The student's feature has {self.dim} dimensions and the teacher's {self.teacher.dim}. Learn a "
                "map with {projection} linear (dropped after training), or choose a teacher of the same "
                "dimension"
            )

    def reference(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor | None:
        """The teacher's features of a batch."""
        if self.lambda_ == 0:
            return None
        found = self.teacher(images) if self.table is None else self.table(batch["impath"])
        return found.to(images.device)

    def fingerprint(self) -> str:
        """The teacher's."""
        return self.teacher.fingerprint() if self.lambda_ > 0 else ""

    def forward(self, outputs: Outputs, pids: Tensor, reference: Any = None) -> Terms:
        """Returns the terms of the base objective and ``loss_std``, those whose weight is above zero."""
        terms: Terms = {}
        if self.lambda_ < 1:
            own = self.base_terms(outputs, pids)
            terms |= {name: (1 - self.lambda_) * term for name, term in own.items()}
        if self.lambda_ > 0:
            feature = self.descriptor(outputs)
            if self.projection is not None:
                feature = self.projection(feature.float())
            self._compare_once(feature, reference)
            terms["loss_std"] = self.lambda_ * feature_distance(feature, reference)
        return terms

    def _compare_once(self, feature: Tensor, reference: Tensor) -> None:
        """Warns, at the first batch of a training, of a student that cannot give what the teacher does."""
        if self._compared:
            return
        self._compared = True
        lacking = unreachable(feature, reference)
        if lacking:
            print(
                f"WARNING: this student cannot imitate its teacher: {lacking}. Choose a student whose feature is not "
                "the output of a ReLU: the paper's is the teacher's network without cells (model.name <backbone>_ptl "
                "with ptl.cells False), or learn a map with std.projection linear"
            )


class ImageSTDEngine(ImagePTLEngine):
    """:class:`ImagePTLEngine` that distils a teacher into a student.

    Args:
        datamanager: ``torchreid.data.ImageDataManager`` or this package's.
        model: the student, built with ``loss='triplet'`` so that it gives features.
        optimizer: over the student's parameters, and the projection's if there is one.
        teacher: the fine-tuned PTL model; this and the keywords as for :meth:`STDObjective.build`.
        lambda_: weight of the distillation, from 0 to 1; 0.8 in the paper.
        scheduler: learning-rate scheduler; None for a constant rate.
        use_gpu: use a GPU when there is one.
        base: the student's own objective; cross-entropy if None.
        label_smooth: whether to smooth the labels by 0.1, as the host does; the paper names no smoothing.
        projection: see :class:`STDObjective`.
        cache: compute the teacher's features of all training images once; only without augmentation.
        **options: further arguments of :class:`ImagePTLEngine`.

    Raises:
        ValueError: as :meth:`STDObjective.build`.

    Example::

        teacher = torchreid.models.build_model('osnet_x0_25_ptl', pretrained=False)
        load_weights(teacher, 'log/ptl_osnet_x0_25/model/model-best.pth.tar')
        student = torchreid.models.build_model('osnet_x0_25', datamanager.num_train_pids, loss='triplet')
        optimizer = torchreid.optim.build_optimizer(student)
        engine = torchreid.engine.ImageSTDEngine(datamanager, student, optimizer, teacher, lambda_=0.8)
        engine.run(save_dir='log/std', max_epoch=50)
    """

    def __init__(
        self,
        datamanager: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        teacher: nn.Module | FrozenModel,
        lambda_: float = 0.8,
        scheduler: Any = None,
        use_gpu: bool = True,
        *,
        base: Objective | None = None,
        label_smooth: bool = True,
        projection: nn.Module | None = None,
        cache: bool = False,
        **options: Any,
    ) -> None:
        objective = STDObjective.build(
            model,
            teacher,
            datamanager,
            lambda_,
            base or SoftmaxObjective(label_smooth),
            projection,
            cache=cache,
            precision=options.get("precision", "float32"),
            channels_last=options.get("channels_last", False),
        )
        super().__init__(datamanager, model, optimizer, objective, scheduler, use_gpu, **options)


def projection_of(student: nn.Module, teacher: FrozenModel, style: Preprocessing) -> nn.Linear:
    """A linear map from a student's feature to a teacher's dimension [ours], learned during the distillation.

    Give its parameters to the optimiser.
    """
    device = next(student.parameters()).device
    with random_state_kept():  # the plain training, which lambda 0 is, draws nothing here
        return nn.Linear(descriptor_dim(student, style), teacher.dim).to(device)
