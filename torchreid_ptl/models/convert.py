"""Weights of the PTL authors' released code, MGN and MGN+PTL, for this package's models."""

import re

import torch
from torch import Tensor

_HEADS = ("2048_0", "2048_1", "2048_2", "256_1_0", "256_1_1", "256_2_0", "256_2_1", "256_2_2")
_SEQUENTIAL = ("stem.0", "stem.1", "stem.2", "stem.3", "layer1", "layer2", "layer3_0")  # the plain MGN's backbone
_NAMED = {"conv1": "stem.0", "bn1": "stem.1", "layer1": "layer1", "layer2": "layer2", "layer3.0": "layer3_0"}


def is_authors_state(state: dict[str, Tensor]) -> bool:
    """Whether a state dict has the names of the authors' code."""
    return any(key.startswith("fc_id_2048_0.") for key in state)


def convert_authors_weights(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turns a state dict of the authors' MGN or MGN+PTL into one for ``mgn`` or ``mgn_ptl``.

    Layers the authors' MGN+PTL registers twice and never uses are dropped [code]. Their cells
    have no bias: zeros take its place, which gives the same output.

    Args:
        state_dict: as ``model.state_dict()`` of the authors' code gives it, ``module.`` prefixes allowed.

    Returns:
        A complete state dict for ``build_model('mgn' or 'mgn_ptl', num_classes=that of the checkpoint)``.

    Raises:
        ValueError: the names are not those of the authors' code.
    """
    state = {key.removeprefix("module."): value for key, value in state_dict.items()}
    if not is_authors_state(state):
        raise ValueError(
            f"These are no weights of the PTL authors' code: expected names like 'fc_id_2048_0.weight', got "
            f"{sorted(state)[:5]}"
        )
    converted = {place: value for key, value in state.items() if (place := _place(key))}
    for key in [key for key in converted if key.startswith("cells.bconv") and key.endswith("gates.weight")]:
        converted.setdefault(key.replace("weight", "bias"), torch.zeros(converted[key].shape[0]))
    return converted


def _place(key: str) -> str | None:
    """Where an entry of the authors' state dict stands in MGN; None for what they never use."""
    if (head := re.match(r"fc_id_(\w+?)\.(weight|bias)$", key)) and head[1] in _HEADS:
        return f"classifier.{_HEADS.index(head[1])}.{head[2]}"
    if branch := re.match(r"(p[123])\.(.*)", key):
        return f"branches.{branch[1]}.{branch[2]}"
    if key.startswith("reduction."):
        return key
    if key.startswith("ptl."):
        return "cells." + key.removeprefix("ptl.")
    key = key.removeprefix("backbone.")
    if number := re.match(r"(\d)\.(.*)", key):
        return f"{_SEQUENTIAL[int(number[1])]}.{number[2]}"
    return shared_place(key)


def shared_place(key: str) -> str | None:
    """Where an entry of a ResNet-50 stands in the part of MGN that all branches share; None for the others."""
    for name, place in _NAMED.items():
        if key.startswith(name + "."):
            return place + key[len(name) :]
    return None
