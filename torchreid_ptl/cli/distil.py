"""Turns a configuration into a distillation: the teacher, what it wants to see, and the objective."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from .. import host
from ..config import ConfigError
from ..engines import FrozenModel, InputStyle, Objective, STDObjective, projection_of, tabulate
from ..models import available_models
from ..runtime.checkpoint import load_checkpoint
from ..runtime.seeding import random_state_kept
from ..runtime.weights import LoadReport, load_weights


def build_distillation(config: CfgNode, base: Objective, student: nn.Module, datamanager: Any) -> STDObjective:
    """The objective of ``loss.name std``, checked against the student.

    Args:
        config: the configuration.
        base: the student's own objective.
        student: built with ``loss='triplet'``.
        datamanager: of the student's images.

    Raises:
        ValueError: the student gives no features, or of another dimension than the teacher's.
        ConfigError: the teacher's weights are not its own.
    """
    style = InputStyle.of(datamanager)
    teacher = build_teacher(config, style)
    projection = projection_of(student, teacher, style) if config.std.projection == "linear" else None
    objective = STDObjective(teacher, config.std["lambda"], base, projection)
    objective.prepare(student, style)
    if config.std.cache and config.std["lambda"] > 0 and not config.test.evaluate:
        objective.table = tabulate(teacher, datamanager, "teacher", config.train.precision)
    return objective


def build_teacher(config: CfgNode, given: InputStyle) -> FrozenModel:
    """``std.teacher`` with ``std.teacher_weights``, frozen; random generators are left as they were.

    Args:
        config: the configuration.
        given: how the student gets its images.
    """
    std, trained = config.std, {}
    if not config.test.evaluate:  # a test of the student needs no teacher worth its name
        trained = load_checkpoint(std.teacher_weights).get("config", {})
    options: dict[str, Any] = {"num_classes": 1, "loss": "softmax", "pretrained": False, "use_gpu": config.use_gpu}
    if std.teacher in available_models() and not trained.get("ptl", {}).get("cells", True):
        options["version"] = 0
    with random_state_kept():
        network = host.models()[std.teacher](**options)
    if not config.test.evaluate:
        report = load_weights(network, std.teacher_weights)
        _require_whole(std.teacher, std.teacher_weights, report)
        print(f"Teacher {std.teacher}, {std.teacher_weights}: {len(report.matched)} entries loaded")
    device = torch.device("cuda" if config.use_gpu and torch.cuda.is_available() else "cpu")
    return FrozenModel(network, _wants(std, given, trained.get("data", {})), given, device, config.train.channels_last)


def _wants(std: CfgNode, given: InputStyle, trained: Mapping[str, Any]) -> InputStyle:
    """How the teacher wants its images: as is said, else as its checkpoint says, else as the student gets them."""
    mean, spread = std.norm_mean, std.norm_std
    if not any(spread):
        mean, spread = trained.get("norm_mean", given.mean), trained.get("norm_std", given.std)
    return InputStyle(
        std.height or trained.get("height", given.height),
        std.width or trained.get("width", given.width),
        tuple(mean),
        tuple(spread),
    )


def _require_whole(name: str, weights: str, report: LoadReport) -> None:
    """A teacher with some layers as they were born would teach noise."""
    lacking = [entry for entry in report.missing if not entry.startswith("classifier")]
    if lacking:
        raise ConfigError(
            f"{weights} does not fill the teacher {name}: {len(lacking)} entries are missing or of another shape, "
            f"{', '.join(lacking[:3])} for example. Give std.teacher_weights a checkpoint of a training of {name}, or "
            "std.teacher the model the weights were trained with"
        )
