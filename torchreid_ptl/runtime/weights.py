"""Putting the weights of a checkpoint into a model, and saying what matched."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import CheckpointError, load_checkpoint

_WRAPPERS = ("module.", "_orig_mod.")
_STATES = ("state_dict", "model_state_dict", "model", "net", "network")
"""Keys under which programs store the state dict of the trained network."""


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's entries.

    Attributes:
        matched: names of the model's entries that were filled.
        missing: names of the model's entries that were left as they were.
        other_shape: names of entries whose shapes differ, left as they were.
        unknown: names of the checkpoint that the model does not have.
        share: of the model's values without classifiers, how many were filled, between 0 and 1.
    """

    matched: list[str]
    missing: list[str]
    other_shape: list[str]
    unknown: list[str]
    share: float

    @property
    def unfilled(self) -> list[str]:
        """The missing entries that descriptors depend on: neither classifiers nor counters of batches."""
        return [key for key in self.missing if _describes(key)]

    def __str__(self) -> str:
        """One line for each group that has entries."""
        count = len(self.matched) + len(self.missing)
        share = f"{100 * self.share:.1f} % of its values without classifiers"
        lines = [f"{len(self.matched)} of {count} entries of the model loaded, {share}"]
        groups = {
            "left as they were": self.missing,
            "of another shape": self.other_shape,
            "not in the model": self.unknown,
        }
        for label, names in groups.items():
            if names:
                lines.append(f"  {len(names)} {label}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}")
        return "\n".join(lines)


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif type(model).__name__ == "OptimizedModule":  # importing torch._dynamo for its class costs a second
            model = model.get_submodule("_orig_mod")
        else:
            return model


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    classifier: bool = True,
    whole: bool = False,
    label: str = "",
) -> LoadReport:
    """Loads what fits of a checkpoint into a model.

    Prefixes of wrappers, and those of most entries, are stripped; a plain backbone's checkpoint finds its place in
    the PTL network or MGN around it; a classifier of another number of identities is left out.

    Args:
        model: any network, wrapped or not; one with ``adapt_state_dict`` renames the entries first.
        source: a file, or a state dict.
        classifier: False leaves the classifier out even where it fits: as many identities may be other people.
        whole: all entries that descriptors depend on must be filled, as a test needs.
        label: what an error calls the source; a file's name, or "the state dict", by default.

    Returns:
        What matched and what did not.

    Raises:
        CheckpointError: nothing, or less than half of the checkpoint without its heads (classifier, embedding), fits:
            it belongs to another model; ``whole``, and entries of the model would stay as they are; or values that are
            not finite. The model is then unchanged.
    """
    label = label or ("the state dict" if isinstance(source, Mapping) else str(source))
    state = state_of(source if isinstance(source, Mapping) else load_checkpoint(source), label)
    model = unwrap(model)
    own = model.state_dict()
    state = _fitting_names(model, state, own)
    if not classifier:
        state = {key: value for key, value in state.items() if "classifier" not in key}
    fitting = {key: value for key, value in state.items() if _fits(own, key, value)}
    report = LoadReport(
        matched=list(fitting),
        missing=[key for key in own if key not in fitting],
        other_shape=[key for key in state if key in own and key not in fitting],
        unknown=[key for key in state if key not in own],
        share=_share({key: value for key, value in own.items() if _describes(key)}, fitting),
    )
    _require_fit(state, fitting, own, label)
    if whole and report.unfilled:
        raise CheckpointError(_unfilled(report, label))
    require_finite(fitting, label)
    model.load_state_dict(fitting, strict=False)
    return report


def load_whole(model: nn.Module, path: str) -> None:
    """Loads a checkpoint for torchreid's ``FeatureExtractor``, which leaves what does not fit at random by itself.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: it does not fill the model; says what does.
    """
    try:
        print(f"Loading {path}\n{load_weights(model, path, whole=True)}")
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. For a checkpoint of torchreid_ptl, with its embedding head and with or without cells, "
            f"torchreid_ptl.load_model(weights={path!r}) builds the model that it was trained with"
        ) from error


def state_of(content: Mapping[str, Any], label: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, or the checkpoint itself if it is one, without prefixes of wrappers.

    Raises:
        CheckpointError: there is none, there are several, or one of tensors that are not plain numbers.
    """
    plain = {}
    for key, value in _inner(content, label).items():
        while key.startswith(_WRAPPERS):
            key = key.split(".", 1)[1]
        if isinstance(value, Tensor):
            plain[key] = value
    odd = [key for key, value in plain.items() if is_odd(value)]
    if odd:
        raise CheckpointError(
            f"{label} has tensors that are quantised, sparse, complex or without values: {', '.join(odd[:3])}. "
            "Give the weights of the network before it was converted"
        )
    if not plain:
        raise CheckpointError(f"{label} holds no state dict: names of weights with their tensors")
    return plain


def require_finite(state: Mapping[str, Any], label: str) -> None:
    """Makes sure that all weights are numbers.

    Raises:
        CheckpointError: NaN or infinite values; names the first entries.
    """
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}
    bad = [key for key, value in tensors.items() if not bool(value.float().isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{label} has NaN or infinite values in {len(bad)} entries, {', '.join(bad[:3])} for example: its training "
            "diverged. Choose a checkpoint of an earlier epoch"
        )


def _inner(content: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """The state dict of a checkpoint, which may be some levels down."""
    nested = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    for key in _STATES:
        if key in nested:
            return _inner(nested[key], label)
    if "state_dict" in content or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{label} holds no state dict: names of weights with their tensors")
    if any(isinstance(value, Tensor) for value in content.values()):
        return content
    states = [key for key, value in nested.items() if any(isinstance(each, Tensor) for each in value.values())]
    if len(states) > 1:
        raise CheckpointError(
            f"{label} holds several state dicts: {', '.join(map(repr, states[:6]))}. Save the one to load alone"
        )
    return _inner(nested[states[0]], label) if states else {}


def is_odd(value: Tensor) -> bool:
    """Whether a tensor is quantised, sparse, complex or without values."""
    return value.is_quantized or value.layout is not torch.strided or value.is_complex() or value.is_meta


def _fitting_names(model: nn.Module, state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries by the names of the model; without as much of their most frequent prefix as most values need.

    Programs put the network in a part of theirs, ``backbone.`` or ``model.``, with heads and losses beside it.
    """
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = getattr(model, "adapt_state_dict", dict)
    best, count = adapt(state), -1
    while state:
        adapted = adapt(state)
        matched = sum(value.numel() for key, value in adapted.items() if _fits(own, key, value))
        if matched > count:
            best, count = adapted, matched
        sections = Counter(key.partition(".")[0] for key in state if "." in key)
        if not sections or "embedding" in sections:  # of this package: a network with a head is not the network alone
            break
        prefix = f"{sections.most_common(1)[0][0]}."
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return best


def _fits(own: Mapping[str, Tensor], key: str, value: Tensor) -> bool:
    return key in own and own[key].shape == value.shape


def _describes(key: str) -> bool:
    """Whether descriptors depend on an entry; older versions of torch did not store the counters of batches."""
    return "classifier" not in key and not key.endswith("num_batches_tracked")


def _share(counted: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> float:
    total = sum(value.numel() for value in counted.values())
    return sum(value.numel() for key, value in counted.items() if key in fitting) / total if total else 1.0


def _require_fit(
    state: Mapping[str, Tensor], fitting: Mapping[str, Tensor], own: Mapping[str, Tensor], label: str
) -> None:
    # a head can fit a network that it does not belong to: heads on descriptors are alike
    heads = {key for key in state if "classifier" in key or key.startswith("embedding.")}
    share = _share({key: value for key, value in state.items() if key not in heads}, fitting)
    if fitting.keys() - heads and share >= 0.5:
        return
    fit = f"only {100 * share:.0f} % of its values fit" if fitting.keys() - heads else "nothing in it fits"
    raise CheckpointError(
        f"{label} belongs to another model: {fit}. It has entries such as {sorted(state)[:3]}; this model has "
        f"{sorted(own)[:3]}. Choose the model.name the weights were trained with, or its _ptl sibling"
    )


def _unfilled(report: LoadReport, label: str) -> str:
    names = report.unfilled
    kind = "are not in it"
    if report.other_shape:
        kind += " or have another shape there"
    return (
        f"{label} belongs to another model, or to a part of this one: {len(names)} entries of the model {kind}, "
        f"{', '.join(names[:3])} for example, and it fills {100 * report.share:.1f} % of the model's values. The rest "
        "would be untrained. Choose the model.name the weights were trained with"
    )
