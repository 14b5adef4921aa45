"""Building the host's backbones, with an answer for machines that cannot download their ImageNet weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .. import host


class PretrainedWeightsError(FileNotFoundError):
    """ImageNet weights are neither on disk nor to be downloaded."""


def build_backbone(name: str, loss: str, pretrained: bool, use_gpu: bool, **options: Any) -> nn.Module:
    """Builds a model of the host or the plugin with one class; see :func:`missing_weights_explained`."""
    with missing_weights_explained(name, pretrained):
        return host.models()[name](num_classes=1, loss=loss, pretrained=pretrained, use_gpu=use_gpu, **options)


@contextmanager
def missing_weights_explained(name: str, pretrained: bool) -> Iterator[None]:
    """Turns what the host raises when it cannot download ImageNet weights of a model by its name into an answer.

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
