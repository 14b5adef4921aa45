"""Batch-related convolutional cells: layers that carry a latent state from one training batch to the next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BConvCell", "BConvCellV2", "reset_states", "states_kept"]


class BConvCell(nn.Module):
    r"""BConv-Cell: a gated convolution whose latent state passes from batch to batch.

    Progressive Transfer Learning (arXiv 1908.02492), Eq. 1 [paper], with ``*`` a convolution and ``o`` the
    element-wise product::

        i = sigmoid(W_xi * x + b_i)    f = sigmoid(W_xf * x + b_f)    o = sigmoid(W_xo * x + b_o)
        C_b = f o C_{b-1} + i o tanh(W_xc * x + b_c)
        y = o o tanh(C_b)

    The state, (N, out_channels, H', W') like the output, is zero when training (or an epoch) starts and is detached:
    no gradient reaches earlier batches. ``train()`` and :func:`reset_states` clear it. In evaluation mode the cell is
    a pure function of its input, ``y = o o tanh(i o tanh(c))``: the state is neither read nor written and the forget
    gate is not computed [paper: zero state at test time].

    What the paper leaves open [ours]: a batch smaller than the state uses and updates the first rows and keeps the
    others; the extra samples of a larger batch start from zero; an input of another resolution restarts the state.
    Each pass in training mode is a batch: a second one of the same images belongs inside :func:`states_kept`, and
    activation checkpointing, which repeats passes during ``backward()``, is refused.
    ``bias=False`` is the authors' code [code], which has the same order of gates: input, forget, output, cell.

    The state is no parameter and no buffer: it is not in the state dict and not synchronised between processes. It
    follows ``.to()``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output and of the state.
        kernel_size: side of the square kernel, in pixels.
        stride: stride of the convolution, in pixels.
        padding: zero padding on each side, in pixels.
        bias: whether the gates have the biases of Eq. 1.

    Attributes:
        gates: one convolution for all gates, output chunks in the order input, forget, output, cell.
        carry: when False the cell forgets after every batch, in training as well.
        kept: inside :func:`states_kept` the state is read and not written.

    Example:
        >>> cell = BConvCell(3, 8, stride=2)
        >>> cell(torch.rand(4, 3, 16, 8)).shape
        torch.Size([4, 8, 8, 4])
    """

    states: tuple[str, ...] = ("latent",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.carry = True
        self.kept = False
        self.gates = nn.Conv2d(in_channels, 4 * out_channels, kernel_size, stride, padding, bias=bias)
        self.latent: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H', W') and, in training, advances the state."""
        if not self.training:
            return self._stateless(x)
        if self.carry and not torch.compiler.is_compiling() and _in_backward():
            raise RuntimeError(
                "A BConv-Cell ran inside backward(), as activation checkpointing (torch.utils.checkpoint) does: it "
                "would compute other values than before, because the state has gone on. Use no checkpointing around "
                "the cells, that is the blocks of the backbone alone, or ptl.state reset"
            )
        return self._advance(x)

    def reset_state(self) -> None:
        """Forgets every earlier batch: the next one meets a zero state."""
        for name in self.states:
            setattr(self, name, None)

    def train(self, mode: bool = True) -> "BConvCell":
        """Sets the mode as every module does; entering training mode clears the state."""
        if mode:
            self.reset_state()
        super().train(mode)
        return self

    def _advance(self, x: Tensor) -> Tensor:
        i, f, o, c = self.gates(x).chunk(4, dim=1)
        latent = torch.sigmoid(i) * torch.tanh(c)
        previous = _rows(self.latent, latent.shape, latent)
        if previous is not None:
            latent = latent + torch.sigmoid(f) * previous
        self._keep("latent", latent)
        return torch.sigmoid(o) * torch.tanh(latent)

    def _stateless(self, x: Tensor) -> Tensor:
        n, conv = self.out_channels, self.gates
        weight, bias = conv.weight, conv.bias

        def part(rows: slice) -> Tensor:
            return F.conv2d(x, weight[rows], None if bias is None else bias[rows], conv.stride, conv.padding)

        i = part(slice(0, n))
        o, c = part(slice(2 * n, 4 * n)).chunk(2, dim=1)
        return torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * torch.tanh(c))

    def _keep(self, name: str, state: Tensor) -> None:
        """The one place that writes a state: detached, in memory that no later layer can reach."""
        if not self.carry or self.kept:
            return
        if getattr(self, "_is_replica", False):
            raise RuntimeError(
                "A BConv-Cell cannot train under nn.DataParallel on several devices: the state written in the replicas "
                "is lost after every batch. Use one device (CUDA_VISIBLE_DEVICES=0) or one process for each device."
            )
        setattr(self, name, _merge(getattr(self, name), state.detach().clone()))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for name in self.states:
            state = getattr(self, name)
            setattr(self, name, None if state is None else fn(state))
        return self

    def extra_repr(self) -> str:
        """Shows whether the state is carried."""
        return "" if self.carry else "carry=False"


class BConvCellV2(BConvCell):
    r"""BConv-Cell-v2: keeps the output of the previous batch and the latent state.

    Progressive Transfer Learning (arXiv 1908.02492), described there in prose [paper]: the hidden state of earlier
    batches passes a transposed convolution that recovers features of the input's shape; these are concatenated with
    the input before the gates. In formulas [ours], with ``H`` the previous output::

        r = ConvT(H_{b-1})                 out_channels -> in_channels, at the input's height and width
        x' = [x ; r]                       2 * in_channels
        i, f, o, c and C_b                 as in BConvCell, on x'
        y = o o tanh(C_b),  H_b = y        detached

    The transposed convolution has the cell's kernel, stride and padding. Where a stride leaves its output one or more
    pixels short of the input, its output padding fills them [ours]. With ``H = 0``, that is at test time and in the
    first batch, ``r`` is the bias of the transposed convolution alone.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output and of both states.
        kernel_size: side of the square kernel, in pixels.
        stride: stride of the convolution, in pixels.
        padding: zero padding on each side, in pixels.
        bias: whether gates and transposed convolution have biases.

    Attributes:
        gates: one convolution for all gates, output chunks in the order input, forget, output, cell.
        recover: the transposed convolution.
    """

    states = ("latent", "hidden")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(2 * in_channels, out_channels, kernel_size, stride, padding, bias)
        self.in_channels = in_channels
        self.recover = nn.ConvTranspose2d(out_channels, in_channels, kernel_size, stride, padding, bias=bias)
        self.hidden: Tensor | None = None

    def _advance(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], self.out_channels, *self._output_size(x))
        hidden = _rows(self.hidden, shape, x)
        if hidden is None:  # zeros pass the convolution too, so that its weight has a gradient in every batch (DDP)
            hidden = x.new_zeros(shape)
        recovered = self.recover(hidden, output_size=x.shape[-2:])
        y = super()._advance(torch.cat([x, recovered.to(x.dtype)], dim=1))
        self._keep("hidden", y)
        return y

    def _stateless(self, x: Tensor) -> Tensor:
        bias = self.recover.bias
        recovered = torch.zeros_like(x) if bias is None else bias.to(x.dtype).view(1, -1, 1, 1).expand_as(x)
        return super()._stateless(torch.cat([x, recovered], dim=1))

    def _output_size(self, x: Tensor) -> tuple[int, int]:
        conv = self.gates
        height, width = (
            (x.shape[axis + 2] + 2 * int(conv.padding[axis]) - conv.kernel_size[axis]) // conv.stride[axis] + 1
            for axis in (0, 1)
        )
        return height, width


def reset_states(module: nn.Module) -> None:
    """Clears the state of every BConv-Cell in a module, itself included; it may be wrapped, and may have no cells."""
    for child in module.modules():
        if isinstance(child, BConvCell):
            child.reset_state()


@contextmanager
def states_kept(module: nn.Module) -> Iterator[None]:
    """Training passes inside read the states of the BConv-Cells and do not advance them.

    For a step that passes the same images more than once, such as sharpness-aware minimisation: all passes but one
    stand inside, and all of them meet the same states.

    Args:
        module: any network; it may be wrapped, and may have no cells.
    """
    cells = [child for child in module.modules() if isinstance(child, BConvCell)]
    before = [cell.kept for cell in cells]
    for cell in cells:
        cell.kept = True
    try:
        yield
    finally:
        for cell, kept in zip(cells, before, strict=True):
            cell.kept = kept


def _in_backward() -> bool:
    """Whether autograd computes gradients at this moment."""
    return torch._C._current_graph_task_id() != -1


def _rows(state: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor | None:
    """The state of the batch's samples, zeros for those beyond it; None for no state or another resolution."""
    if state is None or state.shape[1:] != tuple(shape[1:]):
        return None
    state = state[: shape[0]].to(like)
    missing = shape[0] - state.shape[0]
    if missing > 0:
        state = torch.cat([state, state.new_zeros(missing, *shape[1:])])
    return state


def _merge(old: Tensor | None, new: Tensor) -> Tensor:
    """The new state, followed by the rows of the old one that a smaller batch did not touch."""
    if old is None or old.shape[1:] != new.shape[1:] or old.shape[0] <= new.shape[0]:
        return new
    return torch.cat([new, old[new.shape[0] :].to(new)])
