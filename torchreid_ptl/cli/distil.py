"""Turns a configuration into a distillation: the teacher, what it wants to see, and the objective."""

from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from ..engines import FrozenModel, InputStyle, Objective, STDObjective, projection_of, tabulate
from .frozen import frozen_network, style_of


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
    # a test of the student needs no teacher worth its name
    weights = "" if config.test.evaluate else std.teacher_weights
    network, content = frozen_network("teacher", std.teacher, weights, config.use_gpu)
    trained = content.get("config", {}).get("data", {})
    wants = style_of((std.height, std.width), std.norm_mean, std.norm_std, trained, given)
    device = torch.device("cuda" if config.use_gpu and torch.cuda.is_available() else "cpu")
    return FrozenModel(network, wants, given, device, config.train.channels_last)
