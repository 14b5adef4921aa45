"""Putting the weights of a checkpoint into a model, and saying what matched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .checkpoint import CheckpointError, load_checkpoint

_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's entries.

    Attributes:
        matched: names of the model's entries that were filled.
        missing: names of the model's entries that were left as they were.
        other_shape: names of entries whose shapes differ, left as they were.
        unknown: names of the checkpoint that the model does not have.
    """

    matched: list[str]
    missing: list[str]
    other_shape: list[str]
    unknown: list[str]

    def __str__(self) -> str:
        """One line for each group that has entries."""
        lines = [f"{len(self.matched)} of {len(self.matched) + len(self.missing)} entries of the model loaded"]
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
    model: nn.Module, source: str | Path | Mapping[str, Tensor], *, classifier: bool = True, label: str = ""
) -> LoadReport:
    """Loads what fits of a checkpoint into a model.

    Prefixes of wrappers are stripped; a plain backbone's checkpoint finds its place in the PTL network or MGN around
    it; a classifier of another number of identities is left out.

    Args:
        model: any network, wrapped or not; one with ``adapt_state_dict`` renames the entries first.
        source: a file, or a state dict.
        classifier: False leaves the classifier out even where it fits: as many identities may be other people.
        label: what an error calls the source; a file's name, or "the state dict", by default.

    Returns:
        What matched and what did not.

    Raises:
        CheckpointError: nothing, or less than half of the checkpoint without its heads (classifier, embedding), fits:
            it belongs to another model. The model is then unchanged.
    """
    label = label or ("the state dict" if isinstance(source, Mapping) else str(source))
    state = state_of(source if isinstance(source, Mapping) else load_checkpoint(source), label)
    model = unwrap(model)
    if hasattr(model, "adapt_state_dict"):
        adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = model.adapt_state_dict  # type: ignore[assignment]
        state = adapt(state)
    if not classifier:
        state = {key: value for key, value in state.items() if "classifier" not in key}
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    report = LoadReport(
        matched=list(fitting),
        missing=[key for key in own if key not in fitting],
        other_shape=[key for key in state if key in own and key not in fitting],
        unknown=[key for key in state if key not in own],
    )
    _require_fit(state, fitting, own, label)
    model.load_state_dict(fitting, strict=False)
    return report


def state_of(content: Mapping[str, Any], label: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, or the checkpoint itself if it is one, without prefixes of wrappers.

    Raises:
        CheckpointError: there is none.
    """
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{label} holds no state dict: names of weights with their tensors")
    plain = {}
    for key, value in state.items():
        while key.startswith(_WRAPPERS):
            key = key.split(".", 1)[1]
        if isinstance(value, Tensor):
            plain[key] = value
    return plain


def _require_fit(
    state: Mapping[str, Tensor], fitting: Mapping[str, Tensor], own: Mapping[str, Tensor], label: str
) -> None:
    # a head can fit a network that it does not belong to: heads on descriptors are alike
    heads = {key for key in state if "classifier" in key or key.startswith("embedding.")}
    counted = {key: value.numel() for key, value in state.items() if key not in heads}
    matched = sum(size for key, size in counted.items() if key in fitting)
    total = sum(counted.values())
    if matched and 2 * matched >= total:
        return
    share = f"only {100 * matched / total:.0f} % of its values fit" if matched else "nothing in it fits"
    raise CheckpointError(
        f"{label} belongs to another model: {share}. It has entries such as {sorted(state)[:3]}; this model has "
        f"{sorted(own)[:3]}. Choose the model.name the weights were trained with, or its _ptl sibling."
    )
