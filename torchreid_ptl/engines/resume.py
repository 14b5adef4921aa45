"""The content of a checkpoint, and the exact continuation of a run from one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..runtime.checkpoint import (
    BEST,
    PREFIX,
    CheckpointError,
    check_room,
    checkpoints,
    is_own,
    lacking,
    load_run,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from ..runtime.errors import MissingFileError
from ..runtime.files import archive, same_file
from ..runtime.seeding import random_state, set_random_state
from ..runtime.weights import load_weights, unwrap

if TYPE_CHECKING:
    from .engine import ImagePTLEngine

Differences = Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]
"""From the configuration in a checkpoint and the present one, the forbidden differences in words."""


def snapshot(engine: "ImagePTLEngine", epoch: int, rank1: float) -> dict[str, Any]:
    """The complete state of a run; the first entries are those of the host's checkpoints.

    Args:
        engine: at the end of ``epoch``, whose cells' states are cleared anyway when the next one starts.
        epoch: counted from 0.
        rank1: of the last test, between 0 and 1.
    """
    return {
        "state_dict": unwrap(engine.model).state_dict(),
        "epoch": epoch + 1,
        "rank1": float(rank1),
        "tested": engine.tested_epoch == epoch,
        "optimizer": engine.optimizer.state_dict(),
        "scheduler": None if engine.scheduler is None else engine.scheduler.state_dict(),
        "objective": engine.objective.state_dict(),
        "reference": engine.objective.fingerprint(),
        "best_score": float(engine.best_score),
        "bad_images": sorted(set(engine.bad_images)),
        "history": engine.history,
        "random_state": random_state(),
        "config": engine.config,
    }


def require_room(engine: "ImagePTLEngine", folder: Path, epochs: int, resume: str) -> None:
    """Makes sure that the disk takes the checkpoints of a run before it begins.

    At once there are the last ones, the best one and the one that is being written.

    Raises:
        OSError: with the space needed and the space free.
    """
    if epochs:
        copies = min(engine.keep_last + 2, epochs + 1)
        check_room(folder, _largest_snapshot(engine), copies, going_on=bool(resume))


def _largest_snapshot(engine: "ImagePTLEngine") -> dict[str, Any]:
    """The state of a run as large as it becomes: with the moments that an optimiser makes in its first step."""
    state = snapshot(engine, 0, 0.0)
    groups, optimizer = engine.optimizer.param_groups, dict(state["optimizer"])
    if not optimizer["state"]:
        pairs = ((parameter, group) for group in groups for parameter in group["params"])
        optimizer["state"] = {number: _moments(parameter, group) for number, (parameter, group) in enumerate(pairs)}
    return {**state, "optimizer": optimizer}


def _moments(parameter: torch.Tensor, group: Mapping[str, Any]) -> list[torch.Tensor]:
    """Tensors as large as those that an optimiser keeps for a parameter, by its options."""
    counted = "betas" in group or "alpha" in group  # Adam and its kin, RMSprop
    averages = 2 * ("betas" in group) + ("alpha" in group)
    count = averages + sum(bool(group.get(name)) for name in ("amsgrad", "centered", "momentum"))
    made = [torch.empty_like(parameter, device="cpu") for _ in range(count)]
    return [*made, torch.zeros(())] if counted else made


def keep(engine: "ImagePTLEngine", folder: Path, epoch: int, rank1: float, is_best: bool) -> Path:
    """Writes the checkpoint of an epoch, as the best one too if it is, and deletes the oldest.

    The best one comes first: a run stopped between the two writes tests that epoch again and writes both.

    Raises:
        OSError: the disk is full or not writable.
    """
    state = snapshot(engine, epoch, rank1)
    path = folder / f"{PREFIX}{epoch + 1}"
    if is_best:
        if (folder / BEST).exists() and not is_own(folder / BEST):
            print(f"Moved {BEST} of another program to {archive(folder, [BEST])}")
        save_checkpoint(state, folder / BEST)
        same_file(folder / BEST, path)
    else:
        save_checkpoint(state, path)
    prune_checkpoints(folder, engine.keep_last)
    return path


def restore(engine: "ImagePTLEngine", folder: Path, resume: str, only_testing: bool = False) -> int:
    """Continues from a checkpoint.

    Args:
        engine: freshly built with the settings of the run to continue.
        folder: where the run's checkpoints are.
        resume: a file, or ``'auto'`` for the newest complete one in ``folder``.
        only_testing: load only the model; no checkpoint is then an error.

    Returns:
        The epoch to go on with, counted from 0; 0 when ``'auto'`` finds none.

    Raises:
        CheckpointError: the checkpoint is truncated, of another model, or of a run with other settings.
        FileNotFoundError: no such file, or nothing to test in ``folder``.
    """
    if resume == "auto":
        found = newest_checkpoint(folder)
        if found is None and only_testing:
            raise MissingFileError(f"{{resume}} is auto and {folder} holds no complete checkpoint to test")
        if found is None and (left := checkpoints(folder)):
            raise CheckpointError(
                f"{folder} holds {', '.join(path.name for path in left)}, and none can be gone on from. Choose another "
                "{save_dir}, or remove them"
            )
        if found is None:
            print(f"Nothing to resume in {folder}: starting from the beginning")
            return 0
        path, state = found
        if path.name == BEST:
            print(f"{folder} has no usable checkpoint of a single epoch: going on from the best one, {BEST}")
    else:
        path, state = Path(resume), load_run(resume)
    if missing := lacking(state):
        raise CheckpointError(f"{path} has no {', '.join(missing)}: it holds weights, not a run. Use {{load_weights}}")
    if not only_testing:
        _require_same_run(engine, path, state)
    _load(engine, path, state, only_testing)
    print(f"Resumed from {path}: {state['epoch']} epoch(s) done")
    engine.last_checkpoint = path
    return int(state["epoch"])


def every_difference(before: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
    """All settings in which two configurations differ; one that only one side has is no difference.

    Example:
        >>> every_difference({"train": {"lr": 0.1, "seed": 1}}, {"train": {"lr": 0.2}})
        ['train.lr was 0.1 and is 0.2']
    """
    then, now = _flat(before), _flat(today)
    return [f"{key} was {then[key]!r} and is {now[key]!r}" for key in then if key in now and then[key] != now[key]]


def _require_same_run(engine: "ImagePTLEngine", path: Path, state: dict[str, Any]) -> None:
    other = engine.differences(state.get("config", {}), engine.config)
    if other:
        raise CheckpointError(
            f"{path} belongs to a run with other settings: {'; '.join(sorted(other))}. Continue with the settings it "
            f"had, or begin a new run from its weights: {{resume}} '' {{load_weights}} {path} "
            "and another {save_dir}"
        )
    before, today = state.get("reference", ""), engine.objective.fingerprint()
    if before != today:
        raise CheckpointError(
            f"{path} was trained with another frozen model (teacher, or old model and its images): its fingerprint was "
            f"{before or 'none'!r} and is {today or 'none'!r}. Continue with the one it had, or begin "
            "a new run in another {save_dir}"
        )


def _load(engine: "ImagePTLEngine", path: Path, state: dict[str, Any], only_testing: bool) -> None:
    try:
        if only_testing:  # on other people than it was trained on: the classifier may have another size
            load_weights(engine.model, state, whole=True, label=str(path))
            return
        unwrap(engine.model).load_state_dict(state["state_dict"])
        engine.optimizer.load_state_dict(state["optimizer"])
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        detail = str(error).strip().split("\n")[:3]
        raise CheckpointError(f"{path} belongs to another model or optimiser: {' '.join(detail)}") from error
    if engine.scheduler is not None and state.get("scheduler") is not None:
        _load_scheduler(engine.scheduler, path, state["scheduler"])
    try:
        engine.objective.load_state_dict(state.get("objective", {}))
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} belongs to another objective: {error}") from error
    engine.best_score = state.get("best_score", -1.0)
    engine.bad_images += state.get("bad_images", [])
    engine.rank1 = float(state.get("rank1", 0.0))
    engine.tested_epoch = int(state["epoch"]) - 1 if state.get("tested", True) else -1
    engine.history = {name: [tuple(p) for p in points] for name, points in state.get("history", {}).items()}
    if "random_state" in state:
        set_random_state(state["random_state"])
    else:
        print(f"{path} holds no random states: the run goes on, but not exactly as it would have")


def _load_scheduler(scheduler: Any, path: Path, state: Mapping[str, Any]) -> None:
    """A schedule takes any state without a word, and fails or ends at a wrong rate later."""
    own = scheduler.state_dict()
    odd = [key for key, value in state.items() if key in own and not _alike(value, own[key])]
    if odd:
        raise CheckpointError(f"{path} belongs to another schedule: {', '.join(odd)} of another kind than in this one")
    scheduler.load_state_dict(dict(state))


def _alike(value: Any, own: Any) -> bool:
    numbers = (int, float)
    return isinstance(value, type(own)) or own is None or isinstance(value, numbers) and isinstance(own, numbers)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
