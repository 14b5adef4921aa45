"""An embedding head: descriptors of a chosen dimension from any re-ID network."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .. import host
from .pretrained import build_backbone
from .ptl import check_loss, initialise, output_of_zeros

_BACKBONE = "backbone."
_WEIGHT = "embedding.0.weight"
_STATISTICS = "embedding.1.running_mean"


class Embedded(nn.Module):
    r"""A network whose descriptor passes a learned linear map to ``dim`` dimensions [ours].

    A new model can be compared with the gallery of an old one only in the old one's dimension::

        descriptor = BatchNorm(W backbone(x))        W: dim x D, without bias
        logits     = classifier(descriptor)

    The batch normalisation is the usual neck of re-ID networks: it centres the coordinates and gives them one scale, so
    that neither the norm of the backbone's descriptor nor a few large coordinates rule angles and distances. It has a
    shift of its own, which is why ``W`` has none.

    In training as in evaluation the head stands on what the backbone gives in evaluation, its descriptor: the
    backbone's own mode is evaluation, while the layers in it keep theirs (batch normalisation and cells train). So the
    head never meets another feature than it was trained on, whatever the backbone adds in training. Children of the
    backbone named ``classifier...`` are replaced by identities: nothing passes them.

    The host's contract: logits in training (``loss='softmax'``) or (logits, descriptor) (``loss='triplet'``), the
    (N, dim) descriptor in evaluation, the backbone's map with ``return_featuremaps=True``.

    Args:
        backbone: any model of the host or the plugin, or a network that gives one descriptor (D,) per image in
            evaluation; it belongs to this object.
        dim: of the new descriptor.
        num_classes: number of training identities.
        loss: ``'softmax'`` or ``'triplet'``; what the backbone was built for does not matter.
        size: height and width of the blank image by which D is found, in pixels; one that the backbone takes.

    Attributes:
        dim: of the descriptor.
        feature_dim: the same, by the host's name.

    Raises:
        ValueError: ``dim`` is no number of dimensions, or the backbone gives no descriptor or takes no such images.
        KeyError: an unknown ``loss``, as in the host.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        num_classes: int = 1,
        loss: str = "softmax",
        *,
        size: tuple[int, int] = (256, 128),
    ) -> None:
        super().__init__()
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise ValueError(f"dim is {dim!r}; an embedding has a whole number of dimensions, at least 1")
        self.loss = check_loss(loss)
        self.dim = self.feature_dim = dim
        for name, _ in list(backbone.named_children()):
            if name.startswith("classifier"):
                setattr(backbone, name, nn.Identity())
        self.backbone = backbone
        self._width = _descriptor_dim(backbone, size)
        self.embedding = nn.Sequential(nn.Linear(self._width, dim, bias=False), nn.BatchNorm1d(dim))
        self.classifier = nn.Linear(dim, num_classes)
        initialise(self.embedding)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.to(next(backbone.parameters()).device)

    def forward(self, x: Tensor, return_featuremaps: bool = False) -> Any:
        """Maps images (N, 3, H, W) to what the host's contract asks for in the present mode."""
        if self.backbone.training:
            self.backbone.training = False  # of itself alone: the modes of its layers are left as they are
        if return_featuremaps:
            return self.backbone(x, return_featuremaps=True)
        described = self.backbone(x)
        _require_descriptor(self.backbone, described, self._width)
        descriptor = self.embedding(described)
        if not self.training:
            return descriptor
        logits = self.classifier(descriptor)
        return logits if self.loss == "softmax" else (logits, descriptor)

    def adapt_state_dict(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Renames the entries of a checkpoint of the backbone, or of one that fits it, to where they stand here."""
        head: dict[str, Tensor] = {}
        if embedding_dim(state):
            head = {key: value for key, value in state.items() if not key.startswith(_BACKBONE)}
            state = {key.removeprefix(_BACKBONE): value for key, value in state.items() if key not in head}
        if hasattr(self.backbone, "adapt_state_dict"):
            state = self.backbone.adapt_state_dict(state)  # type: ignore[operator]
        return {**{_BACKBONE + key: value for key, value in state.items()}, **head}


def embed(
    name: str,
    dim: int,
    num_classes: int = 1,
    loss: str = "softmax",
    pretrained: bool = True,
    use_gpu: bool = True,
    *,
    size: tuple[int, int] = (256, 128),
    **options: Any,
) -> Embedded:
    """Builds a model of the host or the plugin by its name, as an :class:`Embedded` with its arguments.

    ImageNet weights are loaded through the host, which is handed ``use_gpu``; ``options`` are further arguments of the
    plugin's own models.

    Raises:
        KeyError: an unknown model or loss.
        ValueError: as :class:`Embedded`.
        PretrainedWeightsError: the weights could not be had; names the file to place and where.
    """
    if name not in host.models():
        raise KeyError(f"Unknown model: {name!r}; known: {', '.join(sorted(host.models()))}")
    backbone = build_backbone(name, "softmax", pretrained, use_gpu, **options)
    return Embedded(backbone, dim, num_classes, loss, size=size)


def embedding_dim(state: Mapping[str, Tensor]) -> int:
    """Dimension of the embedding head in a state dict of an :class:`Embedded`; 0 where there is none."""
    weight = state.get(_WEIGHT)
    own = weight is not None and weight.dim() == 2 and _STATISTICS in state
    return len(state[_WEIGHT]) if own and any(key.startswith(_BACKBONE) for key in state) else 0


def _descriptor_dim(backbone: nn.Module, size: tuple[int, int]) -> int:
    try:
        described = output_of_zeros(backbone, 1, 3, *size)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{type(backbone).__name__} takes no images of {size[0]}x{size[1]} (height x width): {error}"
        ) from error
    _require_descriptor(backbone, described)
    return int(described.shape[1])


def _require_descriptor(backbone: nn.Module, described: Any, width: int | None = None) -> None:
    shape = tuple(described.shape) if isinstance(described, Tensor) else None
    if shape is not None and len(shape) == 2 and width in (None, shape[1]):
        return
    raise ValueError(
        f"{type(backbone).__name__} gave {type(described).__name__ if shape is None else shape} where an embedding "
        f"head needs its descriptor (N, {width or 'D'}). It must give that whenever its own mode is evaluation, "
        "whatever the modes of its layers"
    )
