"""Runs a chain: its stages one after the other, each from the weights of those before it."""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from ..build.networks import agreed_embedding, read_weights
from ..config.checks import validate
from ..config.loading import ConfigError, get, to_dict
from ..config.words import in_keys
from ..data.preflight import check_folders
from ..engines import CHECKPOINTS
from ..engines.resume import different_settings
from ..report.files import LEFT_BY_TRAINING, archive_previous, run_outputs
from ..runtime.checkpoint import newest_checkpoint
from ..runtime.files import archive, replace_file
from .chain_plan import Chain
from .record import left_by_a_chain, require_same, write_record
from .starts import INDEPENDENT, OLD, TEACHER, final_weights, trains
from .summary import summarise

Run = Callable[[CfgNode], Any]
ROLES = {TEACHER: "teacher", OLD: "old model", INDEPENDENT: "independent model"}
REFERENCES = {"std": (TEACHER,), "compatible": (OLD, INDEPENDENT, "compat.features", "compat.old_images")}
"""By the name of the loss, the settings that name files besides the weights a stage begins from."""


def check_settings(chain: Chain) -> None:
    """Validates the settings of all stages.

    Raises:
        ConfigError: says which stage cannot run, and why.
    """
    for index in range(len(chain.stages)):
        with _naming_stage(chain, index):
            validate(settings_of(chain, index))


def check_files(chain: Chain) -> None:
    """Looks for what the stages need: folders of data sets, and weights that no stage trains.

    Raises:
        ConfigError: a stage asks for another embedding head than the weights it begins from have.
        ValueError: an unknown data set.
        FileNotFoundError: something is missing; says for which stage.
    """
    for index, stage in enumerate(chain.stages):
        data, start = stage.config.data, chain.starts[index]
        with _naming_stage(chain, index):
            _require_file("model.load_weights", start.weights)
            for key in REFERENCES.get(stage.config.loss.name, ()):
                if key not in chain.references[index]:
                    _require_file(key, get(stage.config, key))
            check_folders(data.root, [*data.sources, *data.targets])
    _check_embeddings(chain)


def prepare(chain: Chain) -> None:
    """Checks what can be checked without training, moves aside what is in the way, and writes the chain's plan.

    Raises:
        ConfigError: there is something to resume, but of another chain.
        ValueError: an unknown data set.
        FileNotFoundError: a data set or a file of weights is missing.
    """
    check_files(chain)
    begun = chain.resume and require_same(chain)
    if chain.resume and not begun:
        print(f"Nothing to resume in {chain.folder}: starting from the beginning")
    if not begun:
        moved = left_by_a_chain(chain)
        _require_elsewhere(chain, moved)
        archive_previous(chain.folder, moved)
        write_record(chain)
    text = yaml.safe_dump(chain.as_config(), sort_keys=False)
    replace_file(chain.folder / "config.yaml", text.encode())


def run_stages(chain: Chain, run: Run) -> None:
    """Runs what is not done of a chain, and leaves the summary.

    Args:
        chain: prepared.
        run: runs a single configuration, checked and frozen.
    """
    for index, stage in enumerate(chain.stages):
        place = chain.place(index)
        if chain.resume and is_done(place, stage.config):
            print(f"Stage {stage.number} of {len(chain.stages)}, {stage.name}: done")
            continue
        _archive_dependents(chain, index)
        print(f"Stage {stage.number} of {len(chain.stages)}, {stage.name}: {described(chain, index)}")
        run(settings_of(chain, index, resume=chain.resume and (place / CHECKPOINTS).exists()))
        gc.collect()  # networks and optimisers refer to each other and would share the memory with the next stage's
    print("Left: " + ", ".join(map(str, summarise(chain))))


def _archive_dependents(chain: Chain, index: int) -> None:
    """Moves aside what later stages made of the weights of one that is about to be trained."""
    for later in range(index + 1, len(chain.stages)):
        if index in (chain.starts[later].stage, *chain.references[later].values()):
            place = chain.place(later)
            archive(place, [*run_outputs(place), *LEFT_BY_TRAINING])
            _archive_dependents(chain, later)


@contextmanager
def explain_interruption(chain: Chain) -> Iterator[None]:
    """Says how to go on when a chain stops; Ctrl-C is no error to be traced."""
    try:
        yield
    except BaseException as error:
        print(
            f"The chain stopped. What is done stays in {chain.folder}; the same command with --resume goes on.",
            file=sys.stderr,
        )
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(130) from error
        raise


def settings_of(chain: Chain, index: int, resume: bool = False) -> CfgNode:
    """What a stage runs with: its settings, and the weights of earlier stages."""
    config, start = chain.stages[index].config.clone(), chain.starts[index]
    config.defrost()
    config.model.load_weights = start.weights if start.stage is None else _final(chain, start.stage)
    config.model.load_classifier = start.classifier
    config.model.resume = "auto" if resume else ""
    for key, stage in chain.references[index].items():
        section, name = key.split(".")
        config[section][name] = _final(chain, stage)
    config.freeze()
    return config


def described(chain: Chain, index: int) -> str:
    """In words: what a stage trains, on what, from what."""
    config, start = chain.stages[index].config, chain.starts[index]
    does = f"trains {config.model.name} on {', '.join(config.data.sources)}"
    if not trains(config):
        does = f"tests {config.model.name}"
    source = start.weights or ("its ImageNet weights" if config.model.pretrained else "random weights")
    if start.stage is not None:
        kept = "with its classifier where it fits" if start.classifier else "with a new classifier"
        source = f"{_final(chain, start.stage)} (stage {start.stage + 1}), {kept}"
    learns = "".join(
        f"; its {ROLES[key]} is {_final(chain, stage)} (stage {stage + 1})"
        for key, stage in chain.references[index].items()
    )
    return f"{does}, beginning from {source}{learns}"


def is_done(folder: Path, config: CfgNode) -> bool:
    """Whether a stage left its results and, where it trains, the whole checkpoint of its last epoch."""
    if not (folder / "results.json").is_file():
        return False
    if not trains(config):
        return True
    found = newest_checkpoint(folder / CHECKPOINTS)
    if found is None or int(found[1].get("epoch", 0)) < config.train.max_epoch:
        return False
    return not different_settings(found[1].get("config", {}), to_dict(config))  # else going on with it says so


def _check_embeddings(chain: Chain) -> None:
    """Embedding heads that do not fit are found before the stages in front are trained."""
    asked = [stage.config.model.embedding for stage in chain.stages]
    if not any(asked):
        return
    dims: list[int] = []
    for index, start in enumerate(chain.starts):
        with _naming_stage(chain, index):
            if start.stage is not None:
                found, source = dims[start.stage], f"stage {start.stage + 1}"
            else:
                found, source = read_weights(start.weights).embedding if start.weights else 0, start.weights
            dims.append(agreed_embedding(asked[index], found, source))


def _final(chain: Chain, index: int) -> str:
    return str(final_weights(chain.place(index), chain.stages[index].config))


def _require_elsewhere(chain: Chain, moved: Sequence[str]) -> None:
    """Weights that a stage needs must not be among what is moved out of its way."""
    for start, stage in zip(chain.starts, chain.stages, strict=True):
        named = [get(stage.config, key) for key in REFERENCES.get(stage.config.loss.name, ())]
        for weights in (start.weights, *named):
            parents = Path(weights).resolve().parents
            if weights and any((chain.folder / name).resolve() in parents for name in moved):
                raise ConfigError(
                    f"{stage} needs {weights}, which lies in {chain.folder} and would be moved aside for the new "
                    "chain; choose another data.save_dir, or put the weights elsewhere"
                )


def _require_file(key: str, name: str) -> None:
    if name and not Path(name).is_file():
        raise FileNotFoundError(f"{key} names {name}, which is not there")


@contextmanager
def _naming_stage(chain: Chain, index: int) -> Iterator[None]:
    """Says which stage an error is about."""
    stage = chain.stages[index]
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Stage {stage.number} ({stage.name!r}): {in_keys(error)}") from error
    except ValueError as error:
        raise ConfigError(f"Stage {stage.number} ({stage.name!r}): {in_keys(error)}") from error
