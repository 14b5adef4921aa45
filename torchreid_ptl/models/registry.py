"""The table of the plugin's model names and the factories behind them."""

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
    factories = {
        name + suffix: _ptl_factory(name, version) for name in splittable() for suffix, version in _SUFFIXES.items()
    }
    factories |= {name: _mgn_factory(version) for name, version in _MGN.items()}
    for name, factory in factories.items():
        factory.__name__ = factory.__qualname__ = name
        host.register_model(name, factory)
    _NAMES[:] = factories


def _ptl_factory(backbone: str, default_version: int) -> host.Factory:
    split = split_of(host.models()[backbone])

    def build(
        num_classes: int = 1,
        loss: str = "softmax",
        pretrained: bool = True,
        use_gpu: bool = True,
        *,
        version: int = default_version,
        **options: Any,
    ) -> nn.Module:
        return PTL(
            build_backbone(backbone, loss, pretrained, use_gpu),
            version,
            blocks=split.blocks,
            embedding=split.embedding,
            wide=split.wide,
            num_classes=num_classes,
            loss=loss,
            **options,
        )

    return build


def _mgn_factory(default_version: int) -> host.Factory:
    def build(
        num_classes: int = 1,
        loss: str = "softmax",
        pretrained: bool = True,
        use_gpu: bool = True,
        *,
        version: int = default_version,
        **options: Any,
    ) -> nn.Module:
        resnet = build_backbone("resnet50", loss, pretrained, use_gpu)
        return MGN(resnet, version, num_classes=num_classes, loss=loss, **options)

    return build
