"""Turns a configuration into a distillation: the teacher, what it wants to see, and the objective."""

from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from .. import host
from ..config import ConfigError
from ..engines import FrozenModel, InputStyle, Objective, STDObjective, projection_of, tabulate
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
    std = config.std
    wants = InputStyle(std.height or given.height, std.width or given.width, tuple(std.norm_mean), tuple(std.norm_std))
    with random_state_kept():
        network = host.models()[std.teacher](num_classes=1, loss="softmax", pretrained=False, use_gpu=config.use_gpu)
    if not config.test.evaluate:  # a test of the student needs no teacher worth its name
        report = load_weights(network, std.teacher_weights)
        _require_whole(std.teacher, std.teacher_weights, report)
        print(f"Teacher {std.teacher}, {std.teacher_weights}: {len(report.matched)} entries loaded")
    device = torch.device("cuda" if config.use_gpu and torch.cuda.is_available() else "cpu")
    return FrozenModel(network, wants, given, device, config.train.channels_last)


def _require_whole(name: str, weights: str, report: LoadReport) -> None:
    """A teacher with some layers as they were born would teach noise."""
    lacking = [entry for entry in report.missing if not entry.startswith("classifier")]
    if lacking:
        raise ConfigError(
            f"{weights} does not fill the teacher {name}: {len(lacking)} entries are missing or of another shape, "
            f"{', '.join(lacking[:3])} for example. Give std.teacher_weights a checkpoint of a training of {name}, or "
            "std.teacher the model the weights were trained with"
        )
