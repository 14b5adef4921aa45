"""Steps that pass their images more than once, the number of batches, and rates that end where they should."""

import random

import pytest
import torch
import torchreid
from torch.utils.checkpoint import checkpoint

from torchreid_ptl import BConvCell, BConvCellV2, states_kept
from torchreid_ptl.data.batches import count_batches, draw_batches
from torchreid_ptl.data.reading import BadImageError
from torchreid_ptl.engines import ImagePTLEngine, SoftmaxObjective

SAMPLERS = {
    "RandomIdentitySampler": {"num_instances": 2},
    "RandomDomainSampler": {"num_cams": 2},
    "RandomSampler": {},
}


def engine_of(manager, model, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return ImagePTLEngine(manager, model, optimizer, SoftmaxObjective(), use_gpu=False, **options)


def uneven(manager):
    """Leaves 8 images of the first identity and 2 of each other."""
    seen = {}
    manager.train_set.data = manager.train_set.train = [
        image for image in manager.train_set.data * 2
        if seen.setdefault(image[1], []).append(0) or len(seen[image[1]]) <= (8 if image[1] == 0 else 2)
    ]  # fmt: skip
    manager.train_loader = manager._training_loader(manager.train_set)
    return manager


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_are_counted_before_they_come(tiny_manager, name):
    loader = uneven(tiny_manager(train_sampler=name, batch_size_train=4, **SAMPLERS[name])).train_loader
    for _ in range(20):
        assert draw_batches(loader) == sum(1 for _ in loader)
    state = random.getstate(), torch.get_rng_state()
    assert 1 <= count_batches(loader) <= 3
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])


def test_counting_does_not_change_what_is_drawn(tiny_manager):
    def order(count):
        random.seed(3)
        loader = tiny_manager(train_sampler="RandomIdentitySampler", num_instances=2).train_loader
        count(loader)
        return [path for batch in loader for path in batch["impath"]]

    assert order(draw_batches) == order(count_batches) == order(len)


@pytest.mark.parametrize("whose", ["ours", "the host's"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_cycle_ends_at_its_end_and_progress_too(
    tiny_manager, tiny_root, small_model, tmp_path, capsys, name, whose
):
    if whose == "ours":
        manager = uneven(tiny_manager(train_sampler=name, **SAMPLERS[name]))
    else:
        manager = torchreid.data.ImageDataManager(
            root=str(tiny_root), sources="drawn_pedestrians_tiny", height=64, width=32, batch_size_train=4, workers=0,
            use_gpu=False, train_sampler=name, **SAMPLERS[name],
        )  # fmt: skip
    engine = engine_of(manager, small_model(), step_scheduler_per_batch=True)
    total = 6 * count_batches(manager.train_loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(engine.optimizer, 0.1, total_steps=total, cycle_momentum=False)
    engine.scheduler = scheduler
    rates = []
    engine.forward_backward = lambda data: rates.append(engine.get_current_lr()) or {"loss": 0.0}
    capsys.readouterr()
    engine.run(save_dir=str(tmp_path), max_epoch=6, print_freq=1)
    assert max(rates) > 0.09
    assert rates[0] == pytest.approx(0.1 / 25)
    assert rates[-1] < 0.02
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("epoch"):
            done, of = line.partition("[")[2].partition("]")[0].split("/")
            assert int(done) <= int(of)
            last = done == of
    assert last


@pytest.mark.parametrize("cell_type", [BConvCell, BConvCellV2])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_pass_inside_backward_is_refused(cell_type, reentrant):
    cell = cell_type(3, 4).train()
    x = torch.rand(2, 3, 5, 4, requires_grad=True)
    y = checkpoint(cell, x, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match="ran inside backward.*ptl.state reset"):
        y.sum().backward()


@pytest.mark.parametrize("cell_type", [BConvCell, BConvCellV2])
def test_without_a_state_checkpointing_gives_the_gradient(cell_type):
    cell = cell_type(3, 4).double().train()
    cell.carry = False
    x = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    parameters = list(cell.parameters())
    ours = torch.autograd.grad(checkpoint(cell, x, use_reentrant=False).sum(), parameters, materialize_grads=True)
    theirs = torch.autograd.grad(cell(x).sum(), parameters, materialize_grads=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cell_type", [BConvCell, BConvCellV2])
def test_passes_that_keep_the_states_meet_the_same_ones(cell_type):
    cell = cell_type(3, 4).train()
    first, second = torch.rand(2, 2, 3, 5, 4)
    cell(first)
    with states_kept(cell):
        once = cell(second)
        with states_kept(cell):
            twice = cell(second)
        assert torch.equal(cell(second), once)
    assert torch.equal(once, twice)
    assert torch.equal(cell(second), once)
    assert not torch.equal(cell(second), once)


class Twice(ImagePTLEngine):
    """Passes each batch twice, as sharpness-aware minimisation does."""

    kept = False

    def forward_backward(self, data):
        images, _ = self.parse_data_for_train(data)
        if self.kept:
            with states_kept(self.model):
                self.model(images)
        else:
            self.model(images)
        return super().forward_backward(data)


@pytest.mark.parametrize("kept", [False, True])
def test_a_second_pass_of_a_batch_is_refused_unless_states_are_kept(tiny_manager, small_model, tmp_path, kept):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = Twice(tiny_manager(), model, optimizer, SoftmaxObjective(), use_gpu=False)
    engine.kept = kept
    if kept:
        engine.run(save_dir=str(tmp_path), max_epoch=1)
        return
    with pytest.raises(RuntimeError, match="batch of 4 images passed 8 .*states_kept"):
        engine.run(save_dir=str(tmp_path), max_epoch=1)


def test_an_epoch_without_a_readable_batch_is_an_error(tiny_manager, small_model, tmp_path, monkeypatch):
    engine = engine_of(tiny_manager(on_bad_image="skip"), small_model())
    monkeypatch.setattr("torchreid_ptl.data.reading.Image.open", lambda _: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(BadImageError, match="No batch of epoch 1/1 had two readable images: .*jpg"):
        engine.run(save_dir=str(tmp_path), max_epoch=1)


def test_a_start_behind_the_end_is_refused(tiny_manager, small_model, tmp_path):
    with pytest.raises(ValueError, match="start_epoch is 3 and max_epoch 3"):
        engine_of(tiny_manager(), small_model()).run(save_dir=str(tmp_path / "run"), max_epoch=3, start_epoch=3)
    assert not (tmp_path / "run").exists()
