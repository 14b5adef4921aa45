"""Building the host's backbones, with an answer for machines that cannot download their ImageNet weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torchreid
from torch import nn

from .. import host


class PretrainedWeightsError(FileNotFoundError):
    """ImageNet weights are neither on disk nor to be downloaded."""


def build_backbone(name: str, loss: str = "softmax", pretrained: bool = True, use_gpu: bool = True) -> nn.Module:
    """Builds a model of the host with one class.

    Args:
        name: the host's name of the model.
        loss: ``'softmax'`` or ``'triplet'``.
        pretrained: whether to load ImageNet weights, through the host.
        use_gpu: handed to the host.

    Raises:
        PretrainedWeightsError: the weights could not be had; names the file to place and where.
    """
    with missing_weights_explained(name, pretrained):
        return torchreid.models.build_model(name, num_classes=1, loss=loss, pretrained=pretrained, use_gpu=use_gpu)


@contextmanager
def missing_weights_explained(name: str, pretrained: bool) -> Iterator[None]:
    """Turns what the host raises when it cannot download ImageNet weights into an answer.

    Args:
        name: the host's name of the model built inside.
        pretrained: whether weights are asked for; otherwise nothing is changed.

    Raises:
        PretrainedWeightsError: names the file to place and where.
    """
    try:
        yield
    except Exception as error:  # the host's two downloaders raise nothing in common
        if not pretrained or isinstance(error, PretrainedWeightsError):
            raise
        source = host.pretrained_source(host.models()[name])
        if source is None:
            raise
        url, path = source
        state = "is there but cannot be read; delete it" if path.exists() else "is not there"
        raise PretrainedWeightsError(
            f"The ImageNet weights of {name!r} could not be loaded ({type(error).__name__}: {error}). The file {path} "
            f"{state}. Download {url}, place it as {path}, or build the model with pretrained=False "
            "(model.pretrained False on the command line)."
        ) from error
