"""A frozen network: a teacher or an old model."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import host
from ..runtime.seeding import random_state_kept
from ..runtime.weights import unwrap

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a network's images.

    Attributes:
        height: in pixels.
        width: in pixels.
        mean: of each channel, images in [0, 1].
        std: standard deviation of each channel.
    """

    height: int = 256
    width: int = 128
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def of(cls, datamanager: Any) -> "Preprocessing":
        """That of a data manager of the host."""
        return cls(*host.preprocessing(datamanager))


class FrozenModel:
    """A network always in evaluation mode, without gradient, with its own preprocessing.

    It is no module: an objective that holds one does not put it into optimiser, checkpoint or DDP.

    Args:
        network: any model of the host or the plugin; it is put into evaluation mode and belongs to this object.
        expects: the preprocessing of the network.
        receives: the preprocessing of the images it gets; others than ``expects`` are converted [ours]: back to [0, 1],
            resized (bilinear, antialiased) and normalised as the network expects. None: as ``expects``.
        device: of the network.
        channels_last: keep maps in memory with their channels last.

    Attributes:
        dim: dimension of its descriptors.
    """

    def __init__(
        self,
        network: nn.Module,
        expects: Preprocessing | None = None,
        receives: Preprocessing | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = unwrap(network).to(device).to(memory_format=layout).eval().requires_grad_(False)
        self.expects = expects or Preprocessing()
        self.receives = receives or self.expects
        self.device = torch.device(device)
        self.dim = self._probe()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W), as ``receives`` says, to descriptors (N, dim)."""
        if self.network.training:
            raise RuntimeError(
                "A frozen model was put into training mode: its statistics would drift. Do not call train() on it"
            )
        return self.network(self._converted(images.to(self.device)))

    def fingerprint(self) -> str:
        """Identifies a frozen model by weights, statistics and input, independent of its file.

        A classifier is excluded: descriptors do not depend on it. Computed once.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((type(self.network).__name__, self.expects)).encode())
        for name, value in sorted(self.network.state_dict().items()):
            if not name.startswith("classifier"):
                digest.update(f"{name}{tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _converted(self, images: Tensor) -> Tensor:
        size = (self.expects.height, self.expects.width)
        if self.receives == self.expects:
            return images
        plain = images.float() * _channels(self.receives.std, images) + _channels(self.receives.mean, images)
        if images.shape[-2:] != size:
            plain = F.interpolate(plain, size=size, mode="bilinear", antialias=True)
        return (plain - _channels(self.expects.mean, images)) / _channels(self.expects.std, images)

    def _probe(self) -> int:
        with random_state_kept(), torch.no_grad():
            blank = torch.zeros(1, 3, self.expects.height, self.expects.width, device=self.device)
            try:
                out = self.network(blank)
            except (RuntimeError, AssertionError) as error:
                raise ValueError(
                    f"{type(self.network).__name__} takes no images of "
                    f"{self.expects.height}x{self.expects.width}: {error}"
                ) from error
        if not isinstance(out, Tensor) or out.dim() != 2:
            raise ValueError(
                f"{type(self.network).__name__} gives no descriptor (N, D) in evaluation but "
                f"{tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__}; choose a re-ID model"
            )
        return out.shape[1]


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=torch.float32)[:, None, None]
