"""What a checkpoint of a run holds, and continuing from one as if the run had never stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.checkpoint import CheckpointError, load_checkpoint, newest_checkpoint
from ..runtime.seeding import random_state, set_random_state
from ..runtime.weights import unwrap

if TYPE_CHECKING:
    from .engine import ImagePTLEngine

FIXED = ("model.name", "loss.name", "data.sources", "train.optim", "train.lr_scheduler", "train.max_epoch")
"""Settings that a continued run must share with the one it continues."""


def snapshot(engine: "ImagePTLEngine", epoch: int, rank1: float) -> dict[str, Any]:
    """Everything an exact continuation needs; the first entries are those of the host's checkpoints.

    Args:
        engine: at the end of ``epoch``, whose cells' states are cleared anyway when the next one starts.
        epoch: counted from 0.
        rank1: of the last test, between 0 and 1.
    """
    return {
        "state_dict": unwrap(engine.model).state_dict(),
        "epoch": epoch + 1,
        "rank1": float(rank1),
        "tested": engine._tested(),
        "optimizer": engine.optimizer.state_dict(),
        "scheduler": None if engine.scheduler is None else engine.scheduler.state_dict(),
        "objective": engine.objective.state_dict(),
        "best_score": float(engine.best_score),
        "history": engine.history,
        "random_state": random_state(),
        "config": engine.config,
    }


def restore(engine: "ImagePTLEngine", folder: Path, resume: str) -> int:
    """Continues from a checkpoint.

    Args:
        engine: freshly built with the settings of the run to continue.
        folder: where the run's checkpoints are.
        resume: a file, or ``'auto'`` for the newest whole one in ``folder``.

    Returns:
        The epoch to go on with, counted from 0; 0 when ``'auto'`` finds none.

    Raises:
        CheckpointError: the checkpoint is torn, of another model, or of a run with other settings.
    """
    if resume == "auto":
        found = newest_checkpoint(folder)
        if found is None:
            print(f"Nothing to resume in {folder}: starting from the beginning")
            return 0
        path, state = found
    else:
        path, state = Path(resume), load_checkpoint(resume)
    _check(engine, path, state)
    _load(engine, path, state)
    print(f"Resumed from {path}: {state['epoch']} epoch(s) done")
    engine._last_checkpoint = path
    return int(state["epoch"])


def _check(engine: "ImagePTLEngine", path: Path, state: dict[str, Any]) -> None:
    lacking = [key for key in ("state_dict", "optimizer", "epoch") if key not in state]
    if lacking:
        raise CheckpointError(
            f"{path} has no {', '.join(lacking)}: it holds weights, not a run. Use model.load_weights"
        )
    then = state.get("config", {})
    other = [
        f"{key} {_get(then, key)!r} then, {_get(engine.config, key)!r} now"
        for key in FIXED
        if then and engine.config and _get(then, key) != _get(engine.config, key)
    ]
    if other:
        raise CheckpointError(f"{path} belongs to a run with other settings: {'; '.join(other)}")


def _load(engine: "ImagePTLEngine", path: Path, state: dict[str, Any]) -> None:
    try:
        unwrap(engine.model).load_state_dict(state["state_dict"])
        engine.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        detail = str(error).strip().split("\n")[:3]
        raise CheckpointError(f"{path} belongs to another model or optimiser: {' '.join(detail)}") from error
    if engine.scheduler is not None and state.get("scheduler") is not None:
        engine.scheduler.load_state_dict(state["scheduler"])
    engine.objective.load_state_dict(state.get("objective", {}))
    engine.best_score = state.get("best_score", -1.0)
    if state.get("tested"):
        engine._last_test = (int(state["epoch"]) - 1, float(state["rank1"]))
    engine.history = {name: [tuple(p) for p in points] for name, points in state.get("history", {}).items()}
    if "random_state" in state:
        set_random_state(state["random_state"])
    else:
        print(f"{path} holds no random states: the run goes on, but not exactly as it would have")


def _get(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
