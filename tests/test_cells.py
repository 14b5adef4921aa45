"""The cells against Eq. 1 written out sample by sample; the oracle keeps its states itself and shares no code."""

import copy
import gc
import weakref

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from torchreid_ptl import BConvCell, BConvCellV2, evaluating, reset_states

CELLS = [pytest.param(BConvCell, id="v1"), pytest.param(BConvCellV2, id="v2")]
both_cells = pytest.mark.parametrize("cell_type", CELLS)
IN, OUT = 3, 4
EXACT = {"rtol": 1e-11, "atol": 1e-12}


class Oracle:
    """One sample at a time, one gate at a time, states in two Python lists."""

    def __init__(self, cell):
        self.cell = cell
        self.forget_everything()

    def forget_everything(self):
        self.latent, self.hidden = [], []

    @property
    def recurrent(self):
        return isinstance(self.cell, BConvCellV2)

    def gate(self, number, x):
        gates = self.cell.gates
        out = gates.out_channels // 4
        rows = slice(number * out, (number + 1) * out)
        bias = None if gates.bias is None else gates.bias[rows]
        return F.conv2d(x[None], gates.weight[rows], bias, stride=gates.stride, padding=gates.padding)[0]

    def recovered(self, hidden, x):
        """The transposed convolution tap by tap: output pixel s * i + u - p receives W[u] of state pixel i."""
        weight, bias = self.cell.recover.weight, self.cell.recover.bias
        kernel, stride, padding = weight.shape[-1], self.cell.gates.stride[0], self.cell.gates.padding[0]
        height, width = hidden.shape[-2:]
        canvas = x.new_zeros(
            x.shape[0],
            max(stride * (height - 1) + kernel, padding + x.shape[1]),
            max(stride * (width - 1) + kernel, padding + x.shape[2]),
        )
        for u in range(kernel):
            for v in range(kernel):
                tap = torch.einsum("ohw,oc->chw", hidden, weight[:, :, u, v])
                spot = torch.zeros_like(canvas)
                spot[:, u : u + stride * (height - 1) + 1 : stride, v : v + stride * (width - 1) + 1 : stride] = tap
                canvas = canvas + spot
        r = canvas[:, padding : padding + x.shape[1], padding : padding + x.shape[2]]
        return r if bias is None else r + bias[:, None, None]

    def sample(self, x, latent, hidden):
        if self.recurrent:
            x = torch.cat([x, self.recovered(hidden, x)])
        i, f, o = (torch.sigmoid(self.gate(number, x)) for number in range(3))
        c = torch.tanh(self.gate(3, x))
        latent = f * latent + i * c
        return o * torch.tanh(latent), latent.detach()

    def zero(self, x):
        conv = self.cell.gates
        sides = [(n + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1 for n in x.shape[-2:]]
        return x.new_zeros(conv.out_channels // 4, *sides)

    def train(self, batch):
        zero = self.zero(batch[0])
        if self.latent and self.latent[0].shape != zero.shape:
            self.forget_everything()
        while len(self.latent) < len(batch):
            self.latent.append(zero)
            self.hidden.append(zero)
        outputs = []
        for j, x in enumerate(batch):
            y, self.latent[j] = self.sample(x, self.latent[j], self.hidden[j])
            self.hidden[j] = y.detach()
            outputs.append(y)
        return torch.stack(outputs)

    def evaluate(self, batch):
        zero = self.zero(batch[0])
        return torch.stack([self.sample(x, zero, zero)[0] for x in batch])


def make(cell_type, seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    cell = cell_type(IN, OUT, **options).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():  # large enough that every gate and the memory matter
            parameter.normal_(std=0.5)
    return cell.train()


def images(count, seed, size=(7, 5), dtype=torch.float64):
    return torch.randn(count, IN, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(loss, cell, *inputs):
    return torch.autograd.grad(loss, [*cell.parameters(), *inputs], materialize_grads=True)


def equal(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **(tolerance or EXACT))


# ------------------------------------------------------------------------------------------------- Eq. 1 and geometry


@both_cells
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 5), (8, 6), (9, 4), (1, 1)])
def test_consecutive_training_batches_follow_equation_one(cell_type, bias, stride, size):
    cell = make(cell_type, stride=stride, bias=bias)
    oracle = Oracle(cell)
    for seed in range(4):
        x = images(3, seed, size)
        equal(cell(x), oracle.train(x))


@both_cells
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(1, 1, 0), (1, 2, 0), (2, 2, 0), (3, 3, 1), (3, 2, 0), (4, 2, 1), (5, 1, 2), (5, 3, 2)],
)
def test_other_kernels_match_any_input_size(cell_type, kernel, stride, padding):
    for height in range(6, 6 + stride):
        for width in range(7, 7 + stride):
            cell = make(cell_type, kernel_size=kernel, stride=stride, padding=padding)
            oracle = Oracle(cell)
            for seed in range(3):
                x = images(2, seed, (height, width))
                equal(cell(x), oracle.train(x))


@both_cells
def test_defaults_are_three_by_three_with_bias_and_keep_the_size(cell_type):
    cell = cell_type(IN, OUT)
    assert cell(torch.zeros(2, IN, 6, 5)).shape == (2, OUT, 6, 5)
    assert cell.gates.kernel_size == (3, 3)
    assert cell.gates.bias is not None


@both_cells
def test_without_bias_no_parameter_is_one_dimensional(cell_type):
    assert all(parameter.dim() == 4 for parameter in cell_type(IN, OUT, bias=False).parameters())


def test_shapes_of_the_parameters():
    one, two = BConvCell(IN, OUT), BConvCellV2(IN, OUT)
    assert one.gates.weight.shape == (4 * OUT, IN, 3, 3)
    assert two.gates.weight.shape == (4 * OUT, 2 * IN, 3, 3)
    assert isinstance(two.recover, nn.ConvTranspose2d)
    assert two.recover.weight.shape == (OUT, IN, 3, 3)


@both_cells
def test_state_starts_at_zero_and_matters_afterwards(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    x = images(3, 0)
    first, second = cell(x), cell(x)
    equal(first, oracle.evaluate(x))
    assert (first - second).abs().max() > 1e-2


# ----------------------------------------------------------------------------------------------------------- gradients


@both_cells
def test_gradient_takes_the_state_as_a_constant(cell_type):
    cell = make(cell_type, stride=2)
    oracle = Oracle(cell)
    for seed in range(3):
        x = images(3, seed).requires_grad_()
        twin = x.detach().clone().requires_grad_()
        weights = torch.randn(3, OUT, 4, 3, dtype=torch.float64)
        ours, theirs = (cell(x) * weights).sum(), (oracle.train(twin) * weights).sum()
        equal(gradients(ours, cell, x), gradients(theirs, cell, twin))


@both_cells
def test_no_gradient_reaches_an_earlier_batch(cell_type):
    cell = make(cell_type)
    earlier, later = images(2, 0).requires_grad_(), images(2, 1).requires_grad_()
    cell(earlier).sum().backward()  # frees the graph: a second way into it would raise
    earlier.grad = None
    cell(later).sum().backward()
    assert earlier.grad is None
    assert later.grad is not None


@both_cells
def test_no_graph_of_an_earlier_batch_is_kept_alive(cell_type):
    cell = make(cell_type)
    earlier = images(2, 0)
    watch = weakref.ref(earlier)
    y = cell(earlier)
    del y, earlier
    gc.collect()
    assert watch() is None


@both_cells
def test_losses_of_several_batches_may_go_backward_together(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    ours, theirs = 0, 0
    for seed, count in enumerate([4, 2, 4, 5]):
        x = images(count, seed)
        ours, theirs = ours + cell(x).square().sum(), theirs + oracle.train(x).square().sum()
    equal(gradients(ours, cell), gradients(theirs, cell))


@both_cells
@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck_of_one_step(cell_type, stride):
    cell = make(cell_type, stride=stride)

    def from_zero(x, *_):
        reset_states(cell)
        return cell(x)

    def from_a_state(x):
        reset_states(cell)
        cell(images(2, 0, (3, 4)))
        return cell(x)

    x = images(2, 1, (3, 4)).requires_grad_()
    # at a zero state some gradients vanish exactly, which the check compares as well
    assert torch.autograd.gradcheck(from_zero, (x, *cell.parameters()))
    assert torch.autograd.gradcheck(from_a_state, (x,))
    cell.eval()
    assert torch.autograd.gradcheck(lambda x: cell(x), (x,))


@both_cells
def test_the_state_is_safe_from_a_following_layer_that_works_in_place(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    for seed in range(3):
        x = images(2, seed)
        y = cell(x)
        equal(y, oracle.train(x))
        F.relu_(y).sum().backward()
        y.detach().fill_(7.0)


# --------------------------------------------------------------------------------------------------------------- reset


@both_cells
@pytest.mark.parametrize(
    "reset",
    [
        pytest.param(lambda model: model.train(), id="train"),
        pytest.param(lambda model: model.eval().train(), id="eval-train"),
        pytest.param(reset_states, id="reset_states"),
        pytest.param(lambda model: [reset_states(module) for module in model.modules()], id="each"),
    ],
)
def test_reset(cell_type, reset):
    cell = make(cell_type)
    model = nn.Sequential(nn.Identity(), nn.Sequential(cell))
    oracle = Oracle(cell)
    for seed in range(3):
        if seed == 2:
            reset(model)
            oracle.forget_everything()
        x = images(2, seed)
        equal(model(x), oracle.train(x))


def test_reset_states_reaches_every_cell_and_spares_modules_without():
    model = nn.Sequential(make(BConvCell), nn.Conv2d(OUT, IN, 1).double(), make(BConvCellV2, seed=1))
    x = images(2, 0)
    first = model(x)
    assert (model(x) - first).abs().max() > 1e-3
    reset_states(model)
    equal(model(x), first)
    reset_states(nn.Linear(2, 2))


@both_cells
def test_without_carry_each_training_batch_starts_from_zero(cell_type):
    cell = make(cell_type)
    cell.carry = False
    oracle = Oracle(cell)
    for seed, count in enumerate([3, 3, 2, 4]):
        x = images(count, seed)
        oracle.forget_everything()
        ours, theirs = cell(x), oracle.train(x)
        equal(ours, theirs)
        equal(gradients(ours.sum(), cell), gradients(theirs.sum(), cell))


# ---------------------------------------------------------------------------------------------------------- evaluation


@both_cells
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_evaluation_is_a_pure_function_of_each_image(cell_type, stride, bias):
    cell = make(cell_type, stride=stride, bias=bias)
    cell(images(4, 9))
    oracle = Oracle(cell)
    cell.eval()
    x = images(5, 0)
    expected = oracle.evaluate(x)
    equal(cell(x), expected)
    equal(cell(x), expected)
    equal(torch.cat([cell(image[None]) for image in x]), expected)
    equal(cell(x.flip(0)).flip(0), expected)


@both_cells
def test_evaluation_computes_no_forget_gate(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    x = images(2, 0)
    expected = oracle.evaluate(x)
    with torch.no_grad():
        cell.gates.weight[OUT : 2 * OUT] = float("nan")
        cell.gates.bias[OUT : 2 * OUT] = float("nan")
    equal(cell.eval()(x), expected)
    cell.train()(x)
    assert torch.isnan(cell(x)).all()  # where there is something to forget, the gate is used


@both_cells
@pytest.mark.parametrize("size", [(7, 5), (4, 6)])
@pytest.mark.parametrize("no_grad", [True, False])
def test_evaluation_in_mid_training_leaves_the_state(cell_type, size, no_grad):
    cell = make(cell_type)
    model = nn.Sequential(cell)
    oracle = Oracle(cell)
    for seed in range(4):
        x = images(3, seed)
        equal(model(x), oracle.train(x))
        with evaluating(model), torch.set_grad_enabled(not no_grad):
            other = images(5, 20 + seed, size)
            equal(model(other), oracle.evaluate(other))
    assert model.training
    assert cell.training


@both_cells
def test_evaluation_in_inference_mode_leaves_training_able_to_go_on(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    for seed in range(2):
        x = images(2, seed)
        y = cell(x)
        equal(y, oracle.train(x))
        y.sum().backward()
        with evaluating(cell), torch.inference_mode():
            cell(images(2, 5))


@both_cells
def test_a_frozen_cell_stays_frozen_and_keeps_no_state(cell_type):
    cell = make(cell_type)
    model = nn.Sequential(cell).train()
    cell.eval()
    oracle = Oracle(cell)
    for seed in range(2):
        x = images(2, seed)
        equal(model(x), oracle.evaluate(x))
        with evaluating(model):
            model(x)
    assert not cell.training


@pytest.mark.parametrize("stride", [1, 2])
def test_v2_recovers_the_bias_alone_in_evaluation(stride):
    cell = make(BConvCellV2, stride=stride).eval()
    x = images(2, 0, (7, 6))
    expected = cell(x)
    with torch.no_grad():
        cell.recover.weight.fill_(float("nan"))
    equal(cell(x), expected)

    r = cell.recover.bias[None, :, None, None].expand_as(x)
    i, _, o, c = F.conv2d(torch.cat([x, r], 1), cell.gates.weight, cell.gates.bias, stride, padding=1).chunk(4, 1)
    equal(expected, o.sigmoid() * torch.tanh(i.sigmoid() * c.tanh()))


# ------------------------------------------------------------------------------------------------- changing batch shape


@both_cells
@pytest.mark.parametrize("counts", [(4, 2, 4), (4, 1, 1, 3, 4), (2, 5, 5), (4, 2, 6, 3, 6), (1, 3, 2, 4)])
def test_batches_shrink_and_grow(cell_type, counts):
    cell = make(cell_type, stride=2)
    oracle = Oracle(cell)
    for seed, count in enumerate(counts):
        x = images(count, seed)
        equal(cell(x), oracle.train(x))


@both_cells
def test_another_resolution_restarts(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    sizes = [(7, 5), (7, 5), (6, 5), (6, 5), (7, 5), (5, 7)]
    for seed, (size, count) in enumerate(zip(sizes, [4, 4, 2, 4, 3, 4], strict=True)):
        x = images(count, seed, size)
        equal(cell(x), oracle.train(x))


# -------------------------------------------------------------------------------------- the state as a part of a module


@both_cells
def test_the_state_is_neither_parameter_nor_buffer_nor_in_the_state_dict(cell_type):
    cell = make(cell_type)
    names = {"gates.weight", "gates.bias"} | ({"recover.weight", "recover.bias"} if cell_type is BConvCellV2 else set())
    for _ in range(2):
        assert set(cell.state_dict()) == names
        assert {name for name, _ in cell.named_parameters()} == names
        assert not list(cell.buffers())
        cell(images(2, 0))
    make(cell_type, seed=1).load_state_dict(cell.state_dict(), strict=True)


@both_cells
def test_the_state_follows_the_dtype(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    x = images(3, 0)
    cell(x), oracle.train(x)
    model = nn.Sequential(cell).float()
    y = model(images(3, 1).float())
    assert y.dtype == torch.float32
    twin = make(cell_type)
    equal(y.double(), _continued(twin, oracle, images(3, 1)), rtol=1e-5, atol=1e-5)


def _continued(cell, oracle, x):
    """What a cell with the same weights makes of ``x`` from the states of ``oracle``."""
    oracle.cell = cell
    return oracle.train(x)


@both_cells
def test_the_state_follows_the_device(cell_type):
    cell = make(cell_type)
    cell(images(3, 0))
    y = nn.Sequential(cell).to("meta")(images(3, 1).to("meta"))
    assert y.device.type == "meta"
    assert y.shape == (3, OUT, 7, 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@both_cells
def test_the_state_moves_to_cuda_and_back(cell_type):
    cell = make(cell_type, stride=2)
    oracle = Oracle(cell)
    for seed, device in enumerate(["cpu", "cuda", "cuda", "cpu"]):
        x = images(3, seed)
        y = cell.to(device)(x.to(device)).cpu()
        cell.cpu()
        equal(y, oracle.train(x))


@both_cells
def test_a_deep_copy_goes_on_by_itself(cell_type):
    cell = make(cell_type)
    oracle = Oracle(cell)
    x = images(3, 0)
    cell(x), oracle.train(x)
    twin = copy.deepcopy(cell)
    twin_oracle = Oracle(twin)
    twin_oracle.latent, twin_oracle.hidden = list(oracle.latent), list(oracle.hidden)
    for seed in (1, 2):
        y = images(3, seed)
        equal(twin(y), twin_oracle.train(y))
    equal(cell(x), oracle.train(x))


@both_cells
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("reset", [reset_states, lambda model: model.train()], ids=["reset_states", "train"])
def test_compiled_equals_plain(cell_type, backend, reset):
    torch._dynamo.reset()
    cell = make(cell_type, stride=2)
    model = nn.Sequential(nn.Identity(), cell)
    compiled = torch.compile(model, backend=backend)
    oracle = Oracle(cell)
    for seed, count in enumerate([4, 4, 2, 4, 4, 6]):
        if seed == 4:
            reset(compiled)
            oracle.forget_everything()
        x = images(count, seed)
        ours, theirs = compiled(x), oracle.train(x)
        equal(ours, theirs)
        equal(gradients(ours.square().sum(), cell), gradients(theirs.square().sum(), cell))
        with evaluating(compiled), torch.no_grad():
            equal(compiled(x), oracle.evaluate(x))
    x = images(4, 10)
    equal(model(x), oracle.train(x))  # plain and compiled share the one state


@both_cells
def test_bfloat16_autocast(cell_type):
    cell = make(cell_type, dtype=torch.float32, stride=2)
    oracle = Oracle(cell)
    near = {"rtol": 0.05, "atol": 0.05, "check_dtype": False}
    for seed, count in enumerate([3, 3, 2, 4]):
        x = images(count, seed, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            y = cell(x)
        equal(y, oracle.train(x), **near)
        y.float().sum().backward()
        with torch.autocast("cpu", torch.bfloat16), evaluating(cell):
            equal(cell(x), oracle.evaluate(x), **near)
    assert all(torch.isfinite(parameter.grad).all() for parameter in cell.parameters())
    x = images(3, 9, dtype=torch.float32)
    y = cell(x)  # and on without autocast
    assert y.dtype == torch.float32
    equal(y, oracle.train(x), **near)


@both_cells
@pytest.mark.parametrize("carry", [True, False])
def test_distributed_training_needs_no_search_for_unused_parameters(cell_type, carry, tmp_path):
    cell = make(cell_type)
    cell.carry = carry
    oracle = Oracle(cell)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(cell)
        for seed in range(3):
            x = images(2, seed)
            if not carry:
                oracle.forget_everything()
            y = model(x)
            equal(y, oracle.train(x))
            y.sum().backward()
    finally:
        dist.destroy_process_group()


@both_cells
def test_training_in_a_replica_of_data_parallel_is_refused(cell_type):
    cell = make(cell_type)
    x = images(2, 0)
    expected = Oracle(cell).evaluate(x)
    cell._is_replica = True
    with pytest.raises(RuntimeError, match="DataParallel"):
        cell(x)
    equal(cell.eval()(x), expected)
