"""Networks that are used and never changed, from a name and the weights of their training."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .. import host
from ..config import ConfigError
from ..engines import InputStyle
from ..models import available_models
from ..runtime.checkpoint import load_checkpoint
from ..runtime.seeding import random_state_kept
from ..runtime.weights import LoadReport, load_weights


def frozen_network(role: str, name: str, weights: str, use_gpu: bool) -> tuple[nn.Module, dict[str, Any]]:
    """A network with the weights of its training; random generators are left as they were.

    Args:
        role: what it is for, ``'teacher'`` for example.
        name: of the model.
        weights: a checkpoint; random ones if empty.
        use_gpu: as the factories of models want it.

    Returns:
        The network, and the checkpoint without its weights.

    Raises:
        ConfigError: the weights do not fill the network.
        CheckpointError: they belong to another model.
        FileNotFoundError: there is no such file.
    """
    content: dict[str, Any] = load_checkpoint(weights) if weights else {}
    cells = content.get("config", {}).get("ptl", {}).get("cells", True)
    options: dict[str, Any] = {"version": 0} if name in available_models() and not cells else {}
    with random_state_kept():
        network = host.models()[name](num_classes=1, loss="softmax", pretrained=False, use_gpu=use_gpu, **options)
    if weights:
        report = load_weights(network, content)
        _require_whole(role, name, weights, report)
        print(f"{role.capitalize()} {name}, {weights}: {len(report.matched)} entries loaded")
    return network, content


def style_of(
    size: tuple[int, int], mean: Sequence[float], std: Sequence[float], trained: Mapping[str, Any], given: InputStyle
) -> InputStyle:
    """How a network wants its images: as is said, else as its checkpoint says, else as ``given``.

    Args:
        size: height and width, 0 where nothing is said.
        mean: of each channel.
        std: of each channel; zeros where nothing is said of both.
        trained: the section ``data`` of its training's settings.
        given: how the images of this training come.
    """
    if not any(std):
        mean, std = trained.get("norm_mean", given.mean), trained.get("norm_std", given.std)
    height, width = size
    return InputStyle(
        height or trained.get("height", given.height),
        width or trained.get("width", given.width),
        tuple(mean),
        tuple(std),
    )


def _require_whole(role: str, name: str, weights: str, report: LoadReport) -> None:
    """A network with some layers as they were born would say noise."""
    lacking = [entry for entry in report.missing if not entry.startswith("classifier")]
    if lacking:
        raise ConfigError(
            f"{weights} does not fill the {role} {name}: {len(lacking)} entries are missing or of another shape, "
            f"{', '.join(lacking[:3])} for example. Give a checkpoint of a training of {name}, or name the model the "
            "weights were trained with"
        )
