"""Builds networks, with the embedding head of the configuration or of their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from yacs.config import CfgNode

from .. import host
from ..config.checks import is_mgn
from ..config.loading import ConfigError
from ..engines import Preprocessing
from ..models import available_models, embed, embedding_dim, missing_weights_explained
from ..runtime.checkpoint import load_checkpoint
from ..runtime.device import device_of
from ..runtime.hints import hint
from ..runtime.seeding import random_state_kept
from ..runtime.weights import load_weights, state_of


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights.

    Attributes:
        path: of the file.
        state: the state dict, without prefixes of wrappers.
        config: the settings of its training; empty where the file has none.
    """

    path: str
    state: dict[str, Tensor]
    config: Mapping[str, Any]

    @property
    def embedding(self) -> int:
        """Dimension of its embedding head; 0 for a network without one."""
        return embedding_dim(self.state)


def read_weights(path: str) -> Weights:
    """Reads a file of weights.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it is truncated or holds no weights.
    """
    content = load_checkpoint(path)
    config = content.get("config")
    config = config if isinstance(config, Mapping) else {}
    is_ours = all(isinstance(config.get(name, {}), Mapping) for name in ("data", "model", "ptl"))
    return Weights(path, state_of(content, path), config if is_ours else {})


def agreed_embedding(asked: int, found: int, source: str) -> int:
    """The dimension of the embedding head: as ``model.embedding`` asks, else as the weights have it.

    Args:
        asked: ``model.embedding``.
        found: dimension of the head in the weights a network begins from; 0 for none.
        source: of these weights, for the message.

    Raises:
        ConfigError: they differ.
    """
    if asked and found and asked != found:
        raise ConfigError(
            f"model.embedding is {asked}, and the embedding head of {source} has {found} dimensions. Set "
            f"model.embedding to {found}, or to 0, which goes by the weights; or begin from weights without a head"
        )
    return asked or found


def embedding_of(config: CfgNode, weights: Weights | None) -> int:
    """The dimension of the embedding head of the model that is trained or tested; 0 for none.

    Args:
        config: the configuration.
        weights: what ``model.load_weights`` names; None for nothing. Without them that of a checkpoint to resume.

    Raises:
        ConfigError: the heads of configuration and weights differ, or one is to be tested that was never trained.
    """
    asked, resume = config.model.embedding, config.model.resume
    if weights is None and not asked and resume not in ("", "auto"):
        weights = read_weights(resume)
    if weights is None:
        return int(asked)
    if config.test.evaluate and asked and not weights.embedding and not resume:
        raise ConfigError(
            f"model.embedding is {asked} and {weights.path} has no embedding head: a test would be of an "
            "untrained one. Set model.embedding to 0 for the descriptor of the weights"
        )
    return agreed_embedding(asked, weights.embedding, weights.path)


def build_network(
    name: str,
    num_classes: int = 1,
    loss: str = "softmax",
    *,
    embedding: int = 0,
    pretrained: bool = False,
    use_gpu: bool = True,
    size: tuple[int, int],
    **options: Any,
) -> nn.Module:
    """Builds a model of the host or the plugin, with or without an embedding head.

    Args:
        name: of the model.
        num_classes: number of training identities.
        loss: the ``model_loss`` of the objective.
        embedding: dimension of the head; 0 for none.
        pretrained: whether to load ImageNet weights.
        use_gpu: passed to the host.
        size: height and width of the images, in pixels.
        **options: further arguments of the plugin's own models.
    """
    given = {"pretrained": pretrained, "use_gpu": use_gpu, **options}
    if embedding:
        return embed(name, embedding, num_classes, loss, size=size, **given)
    with missing_weights_explained(name, pretrained):
        return host.models()[name](num_classes=num_classes, loss=loss, **given)


def trained_network(
    role: str, name: str, weights: Weights, keys: tuple[str, str], *, use_gpu: bool = True, size: tuple[int, int]
) -> nn.Module:
    """A network with cells and embedding head as in its weights; for descriptors, not for training.

    The states of the random generators are kept.

    Args:
        role: of the network in the training of another one, for messages: ``'teacher'``.
        name: of the model.
        weights: all of them; a classifier may be missing.
        keys: the settings that name the model and its weights, for messages.
        use_gpu: passed to the host.
        size: height and width of its images, in pixels.

    Raises:
        CheckpointError: weights of another model.
        ConfigError: weights of a part of the model; the rest would be untrained.
    """
    options: dict[str, Any] = {}
    if name in available_models() and not weights.config.get("ptl", {}).get("cells", True):
        options["version"] = 0
    with random_state_kept():
        network = build_network(name, embedding=weights.embedding, use_gpu=use_gpu, size=size, **options)
    report = load_weights(network, weights.state, label=weights.path)
    lacking = report.unfilled
    if lacking:
        raise ConfigError(
            f"{weights.path} does not fill the {role} {name}: {len(lacking)} entries are missing or of another shape, "
            f"{', '.join(lacking[:3])} for example. Give {keys[1]} a checkpoint of a training of {name}, or {keys[0]} "
            "the model the weights were trained with"
        )
    print(f"{role.capitalize()} {name}, {weights.path}: {len(report.matched)} entries loaded")
    return network


def load_model(name: str | None = None, weights: str | Path = "", *, use_gpu: bool = False) -> nn.Module:
    """A trained model in evaluation mode, which maps images (N, 3, H, W) to descriptors (N, D).

    Args:
        name: of a model of torchreid or of this plugin; by default that in a checkpoint of this plugin.
        weights: the file; a plain backbone's are no ``_ptl`` model's.
        use_gpu: put it on a GPU when there is one.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: weights of another model, or a file without weights.
        ValueError: an unknown model, a file without the name of its model, or weights of a part of the model.

    Example::

        model = torchreid_ptl.load_model(weights="log/quickstart/model/model-best.pth.tar")
        descriptors = model(images)
    """
    found = read_weights(str(weights))
    trained = found.config.get("data", {})
    name = name or found.config.get("model", {}).get("name")
    if not name:
        raise ValueError(f"{weights} does not contain the name of its model; give it, for example 'osnet_x0_25'")
    if name not in host.models():
        raise ValueError(f"Unknown model {name!r}: {hint(name, host.models())}")
    size = trained.get("height", 256), trained.get("width", 128)
    model = trained_network("model", name, found, ("name", "weights"), use_gpu=use_gpu, size=size)
    return model.eval().to(device_of(use_gpu))


def style_of(
    size: tuple[int, int], mean: Sequence[float], std: Sequence[float], trained: Mapping[str, Any], given: Preprocessing
) -> Preprocessing:
    """The preprocessing of a network: by its settings, else by its checkpoint, else ``given``.

    Args:
        size: height and width, 0 where not set.
        mean: of each channel.
        std: of each channel; zeros where both are not set.
        trained: the section ``data`` of its training's settings.
        given: the preprocessing of this training.
    """
    if not any(std):
        mean, std = trained.get("norm_mean", given.mean), trained.get("norm_std", given.std)
    height, width = size
    return Preprocessing(
        height or trained.get("height", given.height),
        width or trained.get("width", given.width),
        tuple(mean),
        tuple(std),
    )


def build_model(config: CfgNode, num_classes: int, loss: str) -> nn.Module:
    """Builds ``model.name``, with the plugin's switches if it is one of its models, and loads ``model.load_weights``.

    It gets the embedding head of ``model.embedding``, or of the weights.

    Args:
        config: the configuration.
        num_classes: number of training identities.
        loss: the ``model_loss`` of the objective.

    Raises:
        FileNotFoundError: there is no file of weights.
        CheckpointError: weights of another model.
        ConfigError: the embedding heads of configuration and weights differ, or one is to be tested that was never
            trained.
    """
    name, asked = config.model.name, config.model
    options: dict[str, Any] = {}
    if name in available_models():
        options = {"state": config.ptl.state}
        if not is_mgn(name):
            options["start"] = config.ptl.start
        if not config.ptl.cells:
            options["version"] = 0
    weights = read_weights(asked.load_weights) if asked.load_weights else None
    model = build_network(
        name,
        num_classes,
        loss,
        embedding=embedding_of(config, weights),
        # weights that are loaded anyway need no ImageNet weights before them
        pretrained=asked.pretrained and not weights and not (config.test.evaluate and asked.resume),
        use_gpu=config.use_gpu,
        size=(config.data.height, config.data.width),
        **options,
    )
    if weights:
        whole = config.test.evaluate and not asked.resume  # all that is tested was trained
        report = load_weights(model, weights.state, classifier=asked.load_classifier, whole=whole, label=weights.path)
        head = f", with an embedding head of {weights.embedding} dimensions" if weights.embedding else ""
        print(f"Loading {weights.path}{head}\n{report}")
    return model.to(device_of(config.use_gpu))
