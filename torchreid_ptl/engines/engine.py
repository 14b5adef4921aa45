"""The engine: one training step for every objective, the epoch around it, and evaluation."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torchreid
from torch import Tensor, nn

from .. import host
from ..cells import reset_states
from ..data.batches import draw_batches
from ..data.reading import BadImageError
from ..evaluation import Descriptors, EvaluationOptions, RankingResult, VersionComparison, rank
from ..evaluation.backfill import FRACTIONS
from ..evaluation.memory import require_memory
from ..runtime.device import device_of
from ..runtime.errors import ArgumentError
from ..runtime.files import archive, naming
from ..runtime.lock import locked
from ..runtime.precision import PRECISIONS, autocast
from ..runtime.progress import Progress
from ..runtime.weights import unwrap
from .comparison import compare_engine
from .description import describe
from .finite import gradient_norm, require_finite, weights_sum
from .fit import require_epochs, require_fit
from .inference import extract, long_progress
from .modes import evaluating
from .objectives import Objective
from .outputs import Outputs
from .passes import one_pass_per_image, step_at
from .resume import Differences, every_difference, keep, require_room, restore

CHECKPOINTS = "model"
"""The folder of the checkpoints below ``save_dir``, as in the host."""
EVENTS = "events.out.tfevents.*"
"""The files of TensorBoard below ``save_dir``."""


class ImagePTLEngine(torchreid.engine.Engine):
    r"""Trains and tests an image re-ID model, with or without BConv-Cells, for any objective.

    Besides the work of the host's engines: the states of the cells are zero at the start of each epoch and carried
    through it; an evaluation does not affect the training; checkpoints are written atomically, contain the complete
    state of a run and are kept to the best and the last few; progress is shown; a loss that is not finite stops the run
    before the weights change.

    Args:
        datamanager: ``torchreid.data.ImageDataManager`` or this package's.
        model: the network, on its device, built with ``loss=objective.model_loss``.
        optimizer: over the parameters of the model and, when it has any, of the objective.
        objective: what to minimise.
        scheduler: learning-rate scheduler; None for a constant rate.
        use_gpu: use a GPU when there is one.
        step_scheduler_per_batch: step the scheduler after each batch instead of each epoch.
        precision: ``'float32'`` or ``'bfloat16'``.
        channels_last: keep maps in memory with their channels last; faster on a CPU, and on a GPU in half precision.
        keep_last: number of checkpoints of single epochs to keep, at least 1.
        config: plain settings to store in the checkpoint; a description of the arguments if None.
        differences: compares the settings of a checkpoint with the present ones, and returns in words those that forbid
            to resume it; by default every difference.

    Attributes:
        last_checkpoint: the file written last, or continued from.
        results: per target, the :class:`~torchreid_ptl.evaluation.RankingResult` of the last test.
        descriptors: per target, query and gallery descriptors of the last test.
        history: per figure, a list of (epoch, value).

    Example::

        engine = torchreid.engine.ImagePTLEngine(datamanager, model, optimizer, SoftmaxObjective(), scheduler)
        engine.run(save_dir='log/ptl', max_epoch=50)
    """

    def __init__(
        self,
        datamanager: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        scheduler: Any = None,
        use_gpu: bool = True,
        *,
        step_scheduler_per_batch: bool = False,
        precision: str = "float32",
        channels_last: bool = False,
        keep_last: int = 2,
        config: Mapping[str, Any] | None = None,
        differences: Differences = every_difference,
    ) -> None:
        super().__init__(datamanager, use_gpu)
        self.writer: Any = None
        if keep_last < 1:
            raise ArgumentError(f"{{keep_last}} is {keep_last}; at least the last checkpoint is kept")
        self.device = device_of(use_gpu)
        if precision not in PRECISIONS:
            raise ArgumentError(f"{{precision}} is {precision!r}; allowed: {', '.join(PRECISIONS)}")
        require_fit(model, optimizer, objective)
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.register_model("model", model, optimizer, scheduler)
        self.objective = objective.to(self.device)
        self.precision = precision
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        model.to(memory_format=self.memory_format)
        self.keep_last = keep_last
        self.config = describe(self) if config is None else dict(config)
        self.differences = differences
        self.step_scheduler_per_batch = step_scheduler_per_batch
        self.results: dict[str, RankingResult] = {}
        self.descriptors: dict[str, tuple[Descriptors, Descriptors]] = {}
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.best_score = -1.0
        self.rank1 = 0.0
        self.tested_epoch = -1
        self.batch_idx = 0
        self.bad_images: list[str] = []
        self.save_dir = Path("log")
        self.last_checkpoint: Path | None = None

    def run(  # noqa: D417 - the host's arguments are explained by the host
        self,
        save_dir: str = "log",
        max_epoch: int = 0,
        start_epoch: int = 0,
        print_freq: int = 10,
        fixbase_epoch: int = 0,
        open_layers: str | Sequence[str] | None = None,
        start_eval: int = 0,
        eval_freq: int = -1,
        test_only: bool = False,
        *,
        resume: str = "",
        **test: Any,
    ) -> None:
        """Trains and tests as the host's ``run``, with the same arguments and meaning.

        Args:
            resume: a checkpoint to continue from; ``'auto'`` for the newest complete one in ``save_dir``, if any.
            **test: keywords of the host's ``test``; see :meth:`EvaluationOptions.of`.

        Raises:
            NonFiniteLossError: a loss became NaN or infinite.
            ValueError: ``memory_mb`` is too small for a test.
        """
        self.save_dir = Path(save_dir)
        folder = self.save_dir / CHECKPOINTS
        options = EvaluationOptions.of(**test)
        self._require_memory(options)
        if test_only:
            if resume:
                restore(self, folder, resume, only_testing=True)
            self.test(options=options)
            return
        require_epochs(start_epoch, max_epoch)
        with locked(self.save_dir):
            require_room(self, folder, max_epoch, resume)
            if resume:
                start_epoch = restore(self, folder, resume)
            elif aside := archive(self.save_dir, [CHECKPOINTS]):
                print(f"Moved the checkpoints of an earlier run to {aside}")
            self.start_epoch = start_epoch
            self.epoch = max(0, start_epoch - 1)
            self.max_epoch = max_epoch
            started = time.monotonic()
            if self.writer is None:
                self.writer = self._open_writer()

            def due(epoch: int) -> bool:
                done = epoch + 1
                return done == max_epoch or (eval_freq > 0 and done >= start_eval and done % eval_freq == 0)

            missed = self.last_checkpoint is not None and due(self.epoch) and self.tested_epoch != self.epoch
            if missed or start_epoch >= max_epoch:
                # the run stopped before this test, or there are no more epochs
                self._test_epoch(options, trained=self.last_checkpoint is not None)
            for epoch in range(start_epoch, max_epoch):
                self.epoch = epoch
                self.train(print_freq=print_freq, fixbase_epoch=fixbase_epoch, open_layers=open_layers)
                if due(epoch):
                    self._test_epoch(options, trained=True)
                else:
                    self.save_model(epoch, self.rank1, save_dir)
            self._close(started)

    def train(
        self, print_freq: int = 10, fixbase_epoch: int = 0, open_layers: str | Sequence[str] | None = None
    ) -> None:
        """Trains for one epoch, from cleared states."""
        self.set_model_mode("train")
        self.two_stepped_transfer_learning(self.epoch, fixbase_epoch, open_layers)
        self.objective.begin_epoch(self)
        self.train_loader = self.datamanager.train_loader  # an objective may have changed it
        reset_states(self.model)
        host.empty_patch_pools(getattr(self.datamanager, "transform_tr", None))
        sums: dict[str, float] = {}
        self.num_batches = draw_batches(self.train_loader)
        label = f"epoch {self.epoch + 1}/{self.max_epoch}"
        progress: Progress[Any] = Progress(self.train_loader, label, print_freq, self.num_batches)
        counted, means, rate = 0, {}, self.get_current_lr()
        with one_pass_per_image(self.model) as check_passes:
            for self.batch_idx, batch in enumerate(progress):
                if not self._usable(batch):
                    continue
                figures = self.forward_backward(batch)
                check_passes(len(batch["pid"]))
                counted += 1
                for name, value in figures.items():
                    sums[name] = sums.get(name, 0.0) + value
                means = {name: total / counted for name, total in sums.items()}
                rate = self.get_current_lr()
                progress.note(images=len(batch["pid"]), **means, lr=rate)
                self._log_batch(figures)
                self._update_lr_of_batches()
        if not counted:
            raise BadImageError(f"No batch of {label} had two readable images: {', '.join(self.bad_images[:5])} ...")
        self._record({**means, "lr": rate})
        if not self.step_scheduler_per_batch:
            self.update_lr()

    def forward_backward(self, data: Mapping[str, Any]) -> dict[str, float]:
        """One training step: forward, named terms, their sum, backward, optimiser.

        Args:
            data: a batch of the host's loader.

        Returns:
            The sum ``loss``, each term by its name when there are several, and the accuracy ``acc`` in percent.

        Raises:
            NonFiniteLossError: before the weights change, when the sum or a gradient is NaN or infinite.
        """
        images, pids = self.parse_data_for_train(data)
        images = self._place(images)
        pids = pids.to(self.device, non_blocking=True)
        with autocast(self.precision, self.device):
            reference = self.objective.reference(images, data)
            outputs = Outputs.of(self.model(images), self.objective.model_loss)
        right = self.objective.accuracy(outputs, pids)
        terms = self.objective(outputs, pids, reference)
        loss = torch.stack(list(terms.values())).sum()
        named = {name: term.item() for name, term in terms.items()} if len(terms) > 1 else {}
        figures = {"loss": loss.item(), **named}
        self._require_finite(figures)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._require_finite({"gradient": gradient_norm(self.optimizer)})
        self.optimizer.step()
        figures["acc"] = right.item()
        return figures

    def test(self, *args: Any, options: EvaluationOptions | None = None, **kwargs: Any) -> float:
        """Tests on every target; this does not affect the training.

        Args:
            *args: as the host's ``test``; prefer keywords.
            options: how to extract and compare; or the same as keywords.
            **kwargs: keywords of the host's ``test``; see :meth:`EvaluationOptions.of`.

        Returns:
            CMC-1 of the last target, between 0 and 1, like the host's.
        """
        if args:
            raise TypeError("test() takes keyword arguments, or options=EvaluationOptions(...)")
        options = options or EvaluationOptions.of(**kwargs)
        with evaluating(self.model), torch.no_grad():
            for name in self.test_loader:
                self._test_target(name, options)
        return list(self.results.values())[-1].rank(1)

    def compare(
        self,
        old: Any,
        independent: Any = None,
        *,
        options: EvaluationOptions | None = None,
        fractions: Sequence[float] = FRACTIONS,
        dimensions: str = "error",
    ) -> dict[str, VersionComparison]:
        """Compares the model with an old one on the old gallery of each target.

        Args:
            old: a network with the same preprocessing, an ``OldModel``, or descriptors of (query, gallery) by target.
            independent: likewise, a new model trained without the old one, for the update gain.
            options: how to describe and to compare.
            fractions: parts of the gallery that are re-encoded, rising from 0 to 1.
            dimensions: where those of the models differ: ``'error'``, ``'truncate'`` or ``'pad'``.

        Returns:
            Cross test, update gain, backfill curve and flips by target.

        Raises:
            ValueError: dimensions differ without a rule.
        """
        options = options or EvaluationOptions(device=self.device)
        return compare_engine(self, old, independent, options=options, fractions=fractions, dimensions=dimensions)

    @property
    def score(self) -> float:
        """The criterion of the best checkpoint: mAP of the first target."""
        return float(next(iter(self.results.values())).mAP)

    def save_model(self, epoch: int, rank1: float, save_dir: str, is_best: bool = False) -> None:
        """Writes the checkpoint of an epoch, as the best one too if it is, and deletes the oldest."""
        require_finite({"weights": weights_sum(self.model)}, f"after epoch {epoch + 1}", self.last_checkpoint)
        self.last_checkpoint = keep(self, Path(save_dir) / CHECKPOINTS, epoch, rank1, is_best)

    def _test_epoch(self, options: EvaluationOptions, trained: bool) -> None:
        """The test after an epoch, for history and best checkpoint; the checkpoint is written once, afterwards."""
        try:
            self.rank1 = self.test(options=options)
        except BaseException:  # the epoch is kept when its test fails or is interrupted
            if trained:
                self.save_model(self.epoch, self.rank1, str(self.save_dir))
            raise
        for name, result in self.results.items():
            self._record({f"{name} mAP": 100 * result.mAP, f"{name} rank-1": 100 * result.rank(1)})
        if not trained:
            return
        is_best = self.score > self.best_score
        self.best_score = max(self.score, self.best_score)
        self.tested_epoch = self.epoch
        self.save_model(self.epoch, self.rank1, str(self.save_dir), is_best)

    def _test_target(self, name: str, options: EvaluationOptions) -> None:
        kind = " (source)" if name in self.datamanager.sources else " (target)"
        print(f"Testing on {name}{kind if 'lr' in self.history else ''}")  # before a training nothing is a source
        sides = [
            extract(
                lambda images: self.extract_features(self._place(images)),
                self.test_loader[name][side],
                f"  {side}",
                self.device,
                options,
            )
            for side in ("query", "gallery")
        ]
        self.descriptors[name] = (sides[0], sides[1])
        self.bad_images += [path for side in sides for path in side.bad_images]
        pairs = (len(sides[0]) + len(sides[1])) ** 2 if options.rerank else len(sides[0]) * len(sides[1])
        on_device = replace(options, device=self.device)
        result = self.results[name] = rank(sides[0], sides[1], on_device, progress=long_progress(pairs))
        print(result.summary(options.ranks))
        self._write_events({f"Test/{name}/rank1": result.rank(1), f"Test/{name}/mAP": result.mAP}, self.epoch)

    def _require_memory(self, options: EvaluationOptions) -> None:
        for sides in self.test_loader.values():
            require_memory(len(sides["query"].dataset), len(sides["gallery"].dataset), options, self.device)

    def _place(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True, memory_format=self.memory_format)

    def _usable(self, batch: Any) -> bool:
        """Whether a batch has two readable images, which batch normalisation needs."""
        self.bad_images += batch.get("bad_images", [])
        return len(batch["pid"]) > 1

    def _require_finite(self, figures: Mapping[str, float]) -> None:
        require_finite(figures, f"in epoch {self.epoch + 1}, batch {self.batch_idx + 1}", self.last_checkpoint)

    def _record(self, figures: Mapping[str, float]) -> None:
        """Records figures of the present epoch; earlier ones of the same epoch are replaced."""
        for name, value in figures.items():
            points = self.history.setdefault(name, [])
            if points and points[-1][0] == self.epoch + 1:
                points.pop()
            points.append((self.epoch + 1, float(value)))

    def _log_batch(self, figures: Mapping[str, float]) -> None:
        step = self.epoch * self.num_batches + self.batch_idx
        named = {**figures, "lr": self.get_current_lr()}
        self._write_events({f"Train/{name}": value for name, value in named.items()}, step)

    def _write_events(self, figures: Mapping[str, float], step: int) -> None:
        if self.writer is not None:
            with naming(self.save_dir / EVENTS):
                for name, value in figures.items():
                    self.writer.add_scalar(name, value, step)

    def _open_writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(log_dir=str(self.save_dir))

    def _close(self, started: float) -> None:
        print(f"Elapsed {timedelta(seconds=round(time.monotonic() - started))}")
        if self.writer is not None:
            with naming(self.save_dir / EVENTS):
                self.writer.close()
            self.writer = None

    def update_lr(self, names: Sequence[str] | None = None) -> None:
        """Steps the scheduler, if there is one."""
        if self.scheduler is not None:
            self.scheduler.step()

    def _update_lr_of_batches(self) -> None:
        if self.step_scheduler_per_batch and self.scheduler is not None:
            done = self.epoch + (self.batch_idx + 1) / self.num_batches
            step_at(self.scheduler, done / max(1, self.max_epoch))

    def plain_model(self) -> nn.Module:
        """The model without wrappers."""
        return unwrap(self.model)
