"""A chain: successive runs, each from the weights of an earlier one."""

import gc
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from ..build.networks import agreed_embedding, read_weights
from ..config import differences
from ..config.checks import validate
from ..config.loading import CHAIN, ConfigError, flatten, get, to_dict, unflatten
from ..config.request import Config, request
from ..config.words import in_keys
from ..engines import CHECKPOINTS, ImagePTLEngine
from ..report.files import RECORD, RESULTS, WRITTEN_BY_TRAINING, archive_previous, run_outputs
from ..runtime.files import archive, replace_file
from ..runtime.json_text import as_json
from ..runtime.lock import locked, require_unlocked
from .chain_plan import NAME, ROLES, Stage, plan_stages
from .chain_summary import SUMMARY, summarise
from .places import FILES_OF_LOSS
from .run import explain_failure


@dataclass(frozen=True)
class Chain:
    """Stages, each a run, with weights that pass from one to the next.

    Attributes:
        common: the settings of all stages, where they set nothing themselves.
        stages: in order.
        resume: whether the configuration asks to resume.

    Example::

        chain = Chain.of("chain_osnet_x0_25", data={"root": "reid-data"}, model={"load_weights": "osnet.pth"})
        chain.execute(resume=True)
    """

    common: CfgNode
    stages: tuple[Stage, ...]
    resume: bool = False

    @classmethod
    def of(cls, config: Config = None, **overrides: Any) -> "Chain":
        """The chain of a configuration, all of whose stages are checked.

        Raises:
            ConfigError: there is no chain, or a stage cannot run; names it and the reason.
        """
        asked = request(config, overrides)
        if not asked.has_chain:
            raise ConfigError(f"There is no key {CHAIN}: a list of stages, names of data sets or mappings of settings")
        common, stages = plan_stages(asked)
        resume = [value for key, value, _ in (*asked.files, *asked.given) if key == "model.resume"]
        chain = cls(common, tuple(stages), bool(resume and resume[-1]))
        for stage in stages:
            with naming_stage(stage):
                validate(stage.config)
        return chain

    @property
    def folder(self) -> Path:
        """The folder of the chain."""
        return Path(self.common.data.save_dir)

    def as_config(self) -> dict[str, Any]:
        """The content of a configuration file of the same chain."""
        stages = [({NAME: stage.name} if stage.named else {}) | unflatten(stage.given) for stage in self.stages]
        return {**to_dict(self.common), CHAIN: stages}

    def execute(
        self, *, resume: bool = False, after_stage: Callable[[ImagePTLEngine], object] | None = None
    ) -> "Chain":
        """Runs the stages and writes the summary.

        Args:
            resume: skip finished stages, and continue the interrupted one after its newest complete checkpoint.
            after_stage: called with the engine of each stage that ran.

        Raises:
            ConfigError: ``resume``, and the folder holds another chain.
            FileNotFoundError: a data set or a file of weights is missing; nothing was trained.
        """
        resume = resume or self.resume
        self.check_files()
        with locked(self.folder), explain_failure("chain", self.folder):
            self._prepare(resume)
            for stage in self.stages:
                self._execute(stage, resume, after_stage)
            print("Wrote: " + ", ".join(map(str, self._summarise())))
        return self

    def check_files(self) -> None:
        """Checks the folders of data sets, and weights that no stage trains.

        Raises:
            ConfigError: a stage asks for another embedding head than the weights it begins from have.
            ValueError: an unknown data set.
            FileNotFoundError: a folder or a file is missing; names the stage.
        """
        for stage in self.stages:
            with naming_stage(stage):
                begun = () if stage.start is None else ("model.load_weights",)
                stage.run.check(filled=(*begun, *dict(stage.references)))
        self._check_embeddings()

    def describe(self, stage: Stage) -> str:
        """A sentence: what a stage trains, on which data sets, from which weights."""
        config = stage.config
        does = f"trains {config.model.name} on {', '.join(config.data.sources)}"
        if not stage.run.trains:
            does = f"tests {config.model.name}"
        source = config.model.load_weights or ("ImageNet weights" if config.model.pretrained else "random weights")
        if stage.start is not None:
            kept = "with its classifier where it fits" if config.model.load_classifier else "with a new classifier"
            source = f"{source} (stage {stage.start + 1}), {kept}"
        learns = "".join(
            f"; its {ROLES[key]} is {self.stages[number].run.final_weights} (stage {number + 1})"
            for key, number in stage.references
        )
        return f"{does}, beginning from {source}{learns}"

    def record(self) -> dict[str, Any]:
        """The settings of the stages, the content of ``chain.json``."""
        return {
            "stages": [
                {
                    "name": stage.name,
                    "folder": stage.folder,
                    "begins_from": "the configuration" if stage.start is None else self.stages[stage.start].folder,
                    "settings": dict(flatten(to_dict(stage.asked))),
                }
                for stage in self.stages
            ]
        }

    def _execute(self, stage: Stage, resume: bool, after_stage: Callable[[ImagePTLEngine], object] | None) -> None:
        title, run = f"Stage {stage.number} of {len(self.stages)}, {stage.name}", stage.run
        trained = resume and run.has_final_weights()
        if trained and run.is_finished():
            print(f"{title}: done")
            return
        if not trained:
            self._archive_dependents(stage)
        print(f"{title}: {self.describe(stage)}")
        engine = run.execute(resume=resume and (trained or not run.lost()))
        if after_stage:
            after_stage(engine)
        del engine
        gc.collect()  # networks and optimisers refer to each other; frees them before the next stage

    def _archive_dependents(self, stage: Stage) -> None:
        """Archives the outputs of later stages that depend on one that is about to be trained."""
        for later in self.stages[stage.number :]:
            if stage.number - 1 in later.needs:
                require_unlocked(later.run.folder)
                archive(later.run.folder, [*run_outputs(later.run.folder), *WRITTEN_BY_TRAINING])
                self._archive_dependents(later)

    def _prepare(self, resume: bool) -> None:
        begun = resume and self._require_same()
        if resume and not begun:
            print(f"Nothing to resume in {self.folder}: starting from the beginning")
        if begun:
            (self.folder / RESULTS).unlink(missing_ok=True)
        else:
            moved = self._written_before()
            for name in moved:
                require_unlocked(self.folder / name)
            self._require_weights_stay(moved)
            archive_previous(self.folder, moved)
            replace_file(self.folder / RECORD, as_json(self.record()).encode())
        text = yaml.safe_dump(self.as_config(), sort_keys=False)
        replace_file(self.folder / "config.yaml", text.encode())

    def _written_before(self) -> list[str]:
        """Names of the files of an earlier chain, or of a single run, that this chain would overwrite."""
        try:
            stages = [stage["folder"] for stage in _read_record(self.folder / RECORD)]
        except (ConfigError, FileNotFoundError):
            stages = []
        inside = [name for name in stages if Path(name).name == name]
        own = [stage.folder for stage in self.stages]
        names = [RECORD, *SUMMARY, *inside, *own, *WRITTEN_BY_TRAINING, *run_outputs(self.folder)]
        return list(dict.fromkeys(names))

    def _require_same(self) -> bool:
        """Refuses to resume another chain; returns whether there is one to resume."""
        path = self.folder / RECORD
        anew = (
            "begin anew without --resume, which moves the files to a folder earlier-N, or choose another data.save_dir"
        )
        if not path.is_file():
            places = [self.folder, *(stage.run.folder for stage in self.stages)]
            found = [place / name for place in places for name in (RESULTS, CHECKPOINTS) if (place / name).exists()]
            if found:
                raise ConfigError(
                    f"{self.folder} has no {RECORD} and cannot be resumed, but it holds "
                    f"{', '.join(str(file.relative_to(self.folder)) for file in found)}: {anew}"
                )
            return False
        then, now = _read_record(path), self.record()["stages"]
        for number, (old, new) in enumerate(itertools.zip_longest(then, now), 1):
            if changed := _differences(old, new):
                raise ConfigError(
                    f"{path} is the plan of another chain. Stage {number}: {'; '.join(changed)}. Resume with the "
                    f"settings it was begun with, or {anew}"
                )
        return True

    def _require_weights_stay(self, moved: Sequence[str]) -> None:
        """Refuses weights that a stage needs and that would be archived."""
        for stage in self.stages:
            files = [
                get(stage.asked, key) for key in ("model.load_weights", *FILES_OF_LOSS.get(stage.asked.loss.name, ()))
            ]
            for weights in filter(None, files):
                parents = Path(weights).resolve().parents
                if any((self.folder / name).resolve() in parents for name in moved):
                    raise ConfigError(
                        f"{stage} needs {weights}, which lies in {self.folder} and would be moved aside for the new "
                        "chain; choose another data.save_dir, or put the weights elsewhere"
                    )

    def _check_embeddings(self) -> None:
        """Checks the embedding heads of all stages before the first is trained."""
        if not any(stage.config.model.embedding for stage in self.stages):
            return
        dims: list[int] = []
        for stage in self.stages:
            asked, source = stage.config.model.embedding, stage.config.model.load_weights
            with naming_stage(stage):
                if stage.start is not None:
                    found, source = dims[stage.start], f"stage {stage.start + 1}"
                else:
                    found = read_weights(source).embedding if source else 0
                dims.append(agreed_embedding(asked, found, source))

    def _summarise(self) -> list[Path]:
        return summarise(self.folder, self.common, self.stages)


@contextmanager
def naming_stage(stage: Stage) -> Iterator[None]:
    """Names the stage in the message of an error."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Stage {stage.number} ({stage.name!r}): {in_keys(error)}") from error
    except ValueError as error:
        raise ConfigError(f"Stage {stage.number} ({stage.name!r}): {in_keys(error)}") from error


def _read_record(path: Path) -> list[dict[str, Any]]:
    try:
        stages = json.loads(path.read_text("utf-8"))["stages"]
        for stage in stages:
            texts = (stage["name"], stage["folder"], stage["begins_from"])
            if not all(isinstance(value, str) for value in texts) or not isinstance(stage["settings"], dict):
                raise TypeError("not the plan of a chain")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read as the plan of a chain ({type(error).__name__}: {error}); begin anew without "
            "--resume, or choose another data.save_dir"
        ) from error
    return list(stages)


def _differences(old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[str]:
    """In words; a setting that only one of them has is of another version and no difference."""
    if old is None:
        return [f"{new['name']!r} was not there"] if new else []
    if new is None:
        return [f"it was {old['name']!r} and is not there now"]
    names = [
        f"{key} was {old[key]!r} and is {new[key]!r}"
        for key in ("name", "folder", "begins_from")
        if old[key] != new[key]
    ]
    return names + differences(old["settings"], new["settings"], "weights")
