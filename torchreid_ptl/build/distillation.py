"""Turns a configuration into a distillation: the teacher, what it wants to see, and the objective."""

from typing import Any

from torch import nn
from yacs.config import CfgNode

from ..engines import FrozenModel, Objective, Preprocessing, STDObjective, projection_of, tabulate
from ..runtime.seeding import random_state_kept
from .networks import build_network, device_of, read_weights, style_of, trained_network


def build_distillation(config: CfgNode, base: Objective, student: nn.Module, datamanager: Any) -> STDObjective:
    """The objective of ``loss.name std``, checked against the student, unless it is only tested.

    Args:
        config: the configuration.
        base: the student's own objective.
        student: built with ``loss='triplet'``.
        datamanager: of the student's images.

    Raises:
        ValueError: the student gives no features, or of another dimension than the teacher's.
        ConfigError: the teacher's weights are not its own.
    """
    style = Preprocessing.of(datamanager)
    teacher = build_teacher(config, style)
    projection = projection_of(student, teacher, style) if config.std.projection == "linear" else None
    objective = STDObjective(teacher, config.std["lambda"], base, projection)
    if config.test.evaluate:
        return objective
    objective.prepare(student, style)
    if config.std.cache and config.std["lambda"] > 0:
        objective.table = tabulate(teacher, datamanager, "teacher", config.train.precision)
    return objective


def build_teacher(config: CfgNode, given: Preprocessing) -> FrozenModel:
    """``std.teacher`` with ``std.teacher_weights``, frozen; random generators are left as they were.

    Args:
        config: the configuration.
        given: how the student gets its images.
    """
    std, use_gpu = config.std, config.use_gpu
    size = std.height, std.width
    if config.test.evaluate:  # a test of the student needs no teacher worth its name
        wants = style_of(size, std.norm_mean, std.norm_std, {}, given)
        with random_state_kept():
            network = build_network(std.teacher, use_gpu=use_gpu, size=(wants.height, wants.width))
    else:
        weights = read_weights(std.teacher_weights)
        wants = style_of(size, std.norm_mean, std.norm_std, weights.config.get("data", {}), given)
        network = trained_network(
            "teacher",
            std.teacher,
            weights,
            ("std.teacher", "std.teacher_weights"),
            use_gpu=use_gpu,
            size=(wants.height, wants.width),
        )
    return FrozenModel(network, wants, given, device_of(config), config.train.channels_last)
