"""The table of the plugin's model names and the factories behind them."""

from collections.abc import Callable
from typing import Any

from torch import nn

from .. import host
from ..backbones import split_of, splittable
from .mgn import MGN
from .pretrained import build_backbone
from .ptl import PTL

_SUFFIXES = {"_ptl": 1, "_ptl_v2": 2}
_MGN = {"mgn": 0, "mgn_ptl": 1, "mgn_ptl_v2": 2}
_NAMES: list[str] = []


def available_models() -> list[str]:
    """Names this plugin added to the host's ``build_model``."""
    return list(_NAMES)


def register_models() -> None:
    """Adds every model of the plugin to the host's table; again is a no-op."""
    factories: dict[str, host.Factory] = {}
    for name in splittable():
        split = split_of(host.models()[name])
        layout = {"blocks": split.blocks, "embedding": split.embedding, "wide": split.wide}
        factories |= {name + suffix: _factory(PTL, name, version, **layout) for suffix, version in _SUFFIXES.items()}
    factories |= {name: _factory(MGN, "resnet50", version) for name, version in _MGN.items()}
    for name, factory in factories.items():
        factory.__name__ = factory.__qualname__ = name
        host.register_model(name, factory)
    _NAMES[:] = factories


def _factory(kind: Callable[..., nn.Module], backbone: str, default_version: int, **layout: Any) -> host.Factory:
    def build(
        num_classes: int = 1,
        loss: str = "softmax",
        pretrained: bool = True,
        use_gpu: bool = True,
        *,
        version: int = default_version,
        **options: Any,
    ) -> nn.Module:
        network = build_backbone(backbone, loss, pretrained, use_gpu)
        return kind(network, version, num_classes=num_classes, loss=loss, **layout, **options)

    return build
