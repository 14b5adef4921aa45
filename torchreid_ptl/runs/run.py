"""One run: a folder and a configuration; resumable."""

import json
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..build.training import build_datamanager, build_engine, run_options
from ..config import differences
from ..config.loading import ConfigError, flatten, load_config, to_dict
from ..config.recorded import describe_use, origin_of, used
from ..config.request import Config, configure
from ..config.settings import SETTINGS
from ..data.preflight import check_folders
from ..engines import CHECKPOINTS, ImagePTLEngine
from ..report.files import REPORT, RESULTS, prepare_folder, require_no_chain, write_config, write_results
from ..report.target import TargetResult, add_verification, check_shown
from ..runtime.checkpoint import PREFIX, checkpoints, newest_checkpoint
from ..runtime.console_log import log_to
from ..runtime.lock import locked
from ..runtime.memory import freed_memory_kept
from ..runtime.seeding import seed_everything
from .comparison import compare_after_training
from .places import check_places

More = Callable[[ImagePTLEngine], Sequence[Path]]
"""Writes what else belongs to the results of an engine; returns the files."""


@dataclass(frozen=True)
class Run:
    """A training with its tests, or only a test.

    Attributes:
        config: checked and frozen.

    Example::

        run = Run.of("quickstart", train={"max_epoch": 1})
        engine = run.execute()
        print(run.results()["targets"])
    """

    config: CfgNode

    @classmethod
    def of(cls, config: Config = None, **overrides: Any) -> "Run":
        """The run of a configuration; see :func:`~torchreid_ptl.config.request.configure`."""
        return cls(configure(config, **overrides))

    @property
    def folder(self) -> Path:
        """Where it writes: ``data.save_dir``."""
        return Path(self.config.data.save_dir)

    @property
    def trains(self) -> bool:
        """Whether it changes weights; a run without epochs tests what it begins from, and writes no checkpoint."""
        train = self.config.train
        return bool(not self.config.test.evaluate and train.start_epoch < train.max_epoch)

    @property
    def final_weights(self) -> Path:
        """The checkpoint of its last epoch."""
        return self.folder / CHECKPOINTS / f"{PREFIX}{self.config.train.max_epoch}"

    def results(self) -> dict[str, Any]:
        """The content of its ``results.json``.

        Raises:
            FileNotFoundError: it has not been tested.
        """
        found: dict[str, Any] = json.loads((self.folder / RESULTS).read_text("utf-8"))
        return found

    def scores(self) -> dict[str, tuple[float, float]]:
        """MAP and rank-1 of each target, between 0 and 1.

        Raises:
            ValueError: a score was not finite.
        """
        scores = {name: (found["mAP"], found["cmc"]["1"]) for name, found in self.results()["targets"].items()}
        for name, pair in scores.items():
            if not all(isinstance(score, float | int) and math.isfinite(score) for score in pair):
                raise ValueError(f"mAP and rank-1 on {name} are {pair} in {self.folder / RESULTS}: they are not finite")
        return scores

    def is_finished(self) -> bool:
        """Whether its folder holds the results of these settings."""
        try:
            then = self.results()["config"]
            self.scores()
            return bool(then) and not self._changed(then, "scores")
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # no results, or incomplete ones
            return False

    def has_final_weights(self) -> bool:
        """Whether its last checkpoint is complete and of these settings; a run that trains nothing needs none."""
        if not self.trains:
            return True
        found = newest_checkpoint(self.folder / CHECKPOINTS)
        if found is None or found[0] != self.final_weights:
            return False
        return not self._changed(found[1].get("config", {}), "weights")

    def lost(self) -> list[str]:
        """What an earlier run left in its folder, when no checkpoint of it can be gone on from; else nothing."""
        if not self.trains:
            return []
        left = [self.folder / RESULTS, self.folder / REPORT, *checkpoints(self.folder / CHECKPOINTS)]
        found = [str(path.relative_to(self.folder)) for path in left if path.exists()]
        return found if found and newest_checkpoint(self.folder / CHECKPOINTS) is None else []

    def check(self, *, resume: bool = False, filled: Collection[str] = ()) -> None:
        """Checks the folders of its data sets, its files, and that a training in its own folder has the same settings.

        Args:
            resume: whether it is to be continued.
            filled: settings that name files of an earlier stage of a chain, which may be missing.

        Raises:
            ConfigError: its folder cannot be written or is a chain's, or ``resume`` and it holds a training with other
                settings.
            FileNotFoundError: the folder of a data set or a file is missing.
        """
        require_no_chain(self.folder)
        then = self._begun_with() if resume and self.trains else {}
        changed = [*self._changed(then, "weights"), *(f"{key} is unknown now" for key in _unknown(then))]
        if changed:
            raise ConfigError(
                f"--resume: {self.folder} holds a run with other settings: {'; '.join(changed)}. Resume with the "
                "settings it had, choose another data.save_dir, or omit --resume, which moves earlier results to "
                "earlier-N"
            )
        check_places(self.config, filled)
        data = self.config.data
        if self.config.test.evaluate:
            check_folders(data.root, data.targets, training=False)
        else:
            check_folders(data.root, [*data.sources, *data.targets])

    def execute(self, *, resume: bool = False, shown: Sequence[int] = (), more: More = lambda _: ()) -> ImagePTLEngine:
        """Trains, tests and writes the report; ``results.json`` comes last of all.

        Args:
            resume: continue after the newest complete checkpoint, if there is one.
            shown: queries whose rank lists are shown, instead of those that ``eval.rank_lists`` chooses.
            more: writes what else belongs to the results.

        Returns:
            The engine, with its results.

        Raises:
            ConfigError: see :meth:`check`; or ``resume`` and the folder holds results without a checkpoint.
            FileNotFoundError: see :meth:`check`.
        """
        resume = resume or self.config.model.resume == "auto"
        self.check(resume=resume)
        if resume and (lost := self.lost()):
            raise ConfigError(
                f"--resume: {self.folder} holds {', '.join(lost)} of an earlier run and no checkpoint to go on from. "
                "Choose another data.save_dir, remove the folder, or omit --resume, which moves them to earlier-N"
            )
        config = self.config.clone()
        config.defrost()
        if resume and (self.trains or config.model.resume):
            config.model.resume = "auto"
        config.freeze()
        seed_everything(config.train.seed)
        with locked(self.folder), freed_memory_kept(), log_to(self.folder, "test" if config.test.evaluate else "train"):
            return _execute(config, self.folder, shown, more)

    def _begun_with(self) -> dict[str, Any]:
        """The settings of the training in its folder; empty without one."""
        found = newest_checkpoint(self.folder / CHECKPOINTS)
        if found is not None:
            return dict(found[1].get("config", {}))
        path = self.folder / "config.yaml"
        then = to_dict(load_config(path)) if path.is_file() else {}
        return {} if then and then["test"]["evaluate"] else then

    def _changed(self, then: Any, affects: str) -> list[str]:
        return differences(then, to_dict(self.config), affects)


def _execute(config: CfgNode, folder: Path, shown: Sequence[int], more: More) -> ImagePTLEngine:
    started = time.monotonic()
    datamanager = build_datamanager(config)
    if not config.test.evaluate:
        datamanager.check_images()
    for name, sides in datamanager.test_loader.items():
        check_shown(shown, len(sides["query"].dataset), name)
    engine = build_engine(config, datamanager)
    prepare_folder(config, datamanager)
    parameters = sum(p.numel() for p in engine.plain_model().parameters())
    print(f"Model {config.model.name}: {parameters:,} parameters")
    if config.test.evaluate:
        print(describe_use(config))
    engine.run(**run_options(config))
    if engine.bad_images:
        bad = sorted(set(engine.bad_images))
        print(f"{len(bad)} unreadable image(s) skipped: {', '.join(bad[:10])}{' ...' if len(bad) > 10 else ''}")
    write_config(config, folder)
    written = write_results(
        _verified(engine, config),
        config,
        folder,
        time.monotonic() - started,
        model={
            "name": config.model.name,
            "parameters": parameters,
            "weights": config.model.load_weights,
            "settings": used(config),
            **({"settings_from": origin_of(config)} if config.test.evaluate else {}),
        },
        bad_images=engine.bad_images,
        splits=datamanager.splits,
        history={} if config.test.evaluate else engine.history,
        shown=shown,
        more=lambda: [*compare_after_training(engine, config, folder), *more(engine)],
    )
    print("Wrote: " + ", ".join(map(str, written)))
    return engine


def _unknown(then: Mapping[str, Any]) -> list[str]:
    """Settings of an earlier version of this package that a training used and that no longer exist."""
    loss, compat = then.get("loss", {}).get("name"), then.get("compat", {})
    used = [f"compat.{name}." for name in compat.get("losses", ())] if loss == "compatible" else []
    return [key for key, _ in flatten(then) if key.startswith(tuple(used)) and key not in SETTINGS]


def _verified(engine: ImagePTLEngine, config: CfgNode) -> list[TargetResult]:
    targets = [
        add_verification(name, *engine.descriptors[name], result, config) for name, result in engine.results.items()
    ]
    for target in targets:
        if config.test.evaluate and target.verification is not None:
            print(f"{target.name}, {target.verification}")
    return targets


@contextmanager
def explain_failure(what: str, folder: Path) -> Iterator[None]:
    """Prints how to resume when long work (``what``) with results in a folder fails; the command tells of signals."""
    try:
        yield
    except Exception:
        print(
            f"The {what} stopped. Its files are kept in {folder}; the same command with --resume continues it.",
            file=sys.stderr,
        )
        raise
