"""The engine, and the host's engines driving the plugin's models."""

import re

import pytest
import torch
import torchreid
from torch import nn

import torchreid_ptl
from torchreid_ptl.cells import BConvCell
from torchreid_ptl.engines import (
    ImageMGNEngine,
    ImagePTLEngine,
    NonFiniteLossError,
    Objective,
    SoftmaxObjective,
    TripletObjective,
    evaluating,
)
from torchreid_ptl.runtime.checkpoint import load_checkpoint


def sgd(model, lr=0.01):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def engine_of(manager, model, objective=None, optimizer=None, **options):
    objective = objective or SoftmaxObjective()
    return ImagePTLEngine(manager, model, optimizer or sgd(model), objective, use_gpu=False, **options)


def cells_of(model):
    return [module for module in model.modules() if isinstance(module, BConvCell)]


class Watch:
    """Notes for every training batch whether the cells begin it with a state."""

    def __init__(self, model):
        self.seen = []
        cell = cells_of(model)[0]
        cell.register_forward_pre_hook(self.note)

    def note(self, cell, _):
        if cell.training:
            self.seen.append(cell.latent is not None)


@pytest.mark.parametrize("kind", ["softmax", "triplet"])
def test_stock_engines_reset_at_each_epoch_and_carry_within_it(tiny_manager, small_model, tmp_path, kind):
    manager = tiny_manager(
        train_sampler="RandomIdentitySampler" if kind == "triplet" else "RandomSampler", num_instances=2
    )
    model = small_model(loss=kind)
    watch = Watch(model)
    stock = {"softmax": torchreid.engine.ImageSoftmaxEngine, "triplet": torchreid.engine.ImageTripletEngine}[kind]
    optimizer = sgd(model)
    scheduler = torchreid.optim.build_lr_scheduler(optimizer)
    engine = stock(manager, model, optimizer, scheduler=scheduler, use_gpu=False)
    engine.run(save_dir=str(tmp_path), max_epoch=2, eval_freq=1, ranks=[1, 5])
    epochs = "".join("+" if carried else "0" for carried in watch.seen)
    assert re.fullmatch(r"(0\+{2,3}){2}", epochs), epochs  # the identity sampler fills three or four batches


@pytest.mark.parametrize("name", [
        pytest.param("mgn", marks=pytest.mark.slow), pytest.param("mgn_ptl_v2", marks=pytest.mark.slow),
        "densenet121_fc512_ptl", "mobilenetv2_x1_0_ptl_v2",
    ])  # fmt: skip
@pytest.mark.parametrize("kind", ["softmax", "triplet"])
def test_stock_engines_drive_models_with_several_heads_and_of_other_families(tiny_manager, name, kind):
    manager = tiny_manager(train_sampler="RandomIdentitySampler", num_instances=2)
    model = torchreid.models.build_model(
        name, manager.num_train_pids, loss=kind, pretrained=False, use_gpu=False
    ).train()
    stock = {"softmax": torchreid.engine.ImageSoftmaxEngine, "triplet": torchreid.engine.ImageTripletEngine}[kind]
    engine = stock(manager, model, sgd(model), use_gpu=False)
    losses = [engine.forward_backward(batch) for batch in manager.train_loader]
    assert len(losses) >= 3
    assert all(value == value for figures in losses for value in figures.values())  # no NaN
    assert 0 <= engine.test(ranks=[1]) <= 1


@pytest.mark.parametrize("options", [{}, {"state": "reset"}])
def test_own_engine_resets_at_each_epoch_and_carries_within_it(tiny_manager, small_model, tmp_path, options):
    model = small_model(**options)
    watch = Watch(model)
    engine_of(tiny_manager(), model).run(save_dir=str(tmp_path), max_epoch=2, eval_freq=1)
    carried = not options
    assert watch.seen == [False, carried, carried, carried] * 2


def trained(tiny_manager, small_model, tmp_path, test_after=()):
    """Final weights of one epoch, with tests after some of its batches."""
    torch.manual_seed(7)
    model = small_model()
    engine = engine_of(tiny_manager(workers=1, transforms=["random_flip", "random_crop"]), model)
    step, count = engine.forward_backward, iter(range(100))

    def stepping(batch):
        figures = step(batch)
        if next(count) in test_after:
            engine.test()
        return figures

    engine.forward_backward = stepping
    engine.run(save_dir=str(tmp_path), max_epoch=2)
    return model.state_dict()


@pytest.mark.slow
def test_a_test_in_the_middle_of_an_epoch_leaves_no_trace(tiny_manager, small_model, tmp_path):
    plain = trained(tiny_manager, small_model, tmp_path / "a")
    tested = trained(tiny_manager, small_model, tmp_path / "b", test_after=(0, 2, 5))
    assert all(torch.equal(value, tested[name]) for name, value in plain.items())


def test_a_test_in_the_middle_counts_neither_for_the_best_nor_for_the_history(tiny_manager, small_model, tmp_path):
    model = small_model()
    engine = engine_of(tiny_manager(), model)
    step = engine.forward_backward
    engine.forward_backward = lambda batch: (step(batch), engine.test())[0]
    engine.run(save_dir=str(tmp_path), max_epoch=2)
    assert [epoch for epoch, _ in engine.history["drawn_pedestrians_tiny mAP"]] == [2]
    first, last = (load_checkpoint(tmp_path / "model" / f"model.pth.tar-{epoch}") for epoch in (1, 2))
    assert (first["tested"], first["best_score"], last["tested"]) == (False, -1.0, True)


def test_too_little_memory_for_the_test_is_found_before_training(tiny_manager, small_model, tmp_path):
    engine = engine_of(tiny_manager(), small_model())
    with pytest.raises(ValueError, match="memory_mb=1e-05 does not hold one query row against 10 gallery images"):
        engine.run(save_dir=str(tmp_path), max_epoch=1, memory_mb=1e-5)
    assert "loss" not in engine.history


def test_evaluating_restores_modes_states_and_random_numbers(small_model):
    model = small_model().train()
    model.backbone.conv2.eval()
    model(torch.rand(4, 3, 64, 32))
    states = [cell.latent.clone() for cell in cells_of(model)]
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        model(torch.rand(9, 3, 64, 32))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(cell.latent, state) for cell, state in zip(cells_of(model), states, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_one_step_is_plain_gradient_descent(tiny_manager):
    """The step against the same arithmetic written out."""
    model = torchreid.models.build_model("osnet_x0_25", 4, pretrained=False, use_gpu=False).train()
    twin = torchreid.models.build_model("osnet_x0_25", 4, pretrained=False, use_gpu=False).train()
    twin.load_state_dict(model.state_dict())
    batch = {"img": torch.rand(4, 3, 64, 32), "pid": torch.tensor([0, 1, 2, 3])}
    engine = engine_of(tiny_manager(), model, SoftmaxObjective(False), torch.optim.SGD(model.parameters(), lr=0.1))
    figures = engine.forward_backward(batch)
    loss = nn.functional.cross_entropy(twin(batch["img"]), batch["pid"])
    loss.backward()
    assert figures["loss"] == pytest.approx(loss.item())
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach() - 0.1 * theirs.grad, msg=name)


def test_a_plain_criterion_is_no_objective(tiny_manager, small_model):
    with pytest.raises(
        TypeError, match=r"objective is a CrossEntropyLoss; expected an Objective.*SoftmaxObjective\(\)"
    ):
        engine_of(tiny_manager(), small_model(), torch.nn.CrossEntropyLoss())


def test_triplet_and_mgn_objectives(tiny_manager, tmp_path):
    manager = tiny_manager(train_sampler="RandomIdentitySampler", num_instances=2)
    model = torchreid_ptl.host.models()["mgn_ptl"](num_classes=4, loss="triplet", pretrained=False)
    engine = ImageMGNEngine(manager, model, sgd(model), use_gpu=False)
    engine.epoch = engine.max_epoch = 0
    model.train()
    figures = engine.forward_backward(next(iter(manager.train_loader)))
    assert figures["loss"] == pytest.approx(figures["loss_t"] + figures["loss_x"], rel=1e-5)
    osnet = torchreid.models.build_model("osnet_x0_25", 4, loss="triplet", pretrained=False, use_gpu=False)
    engine_of(manager, osnet, TripletObjective()).run(save_dir=str(tmp_path), max_epoch=1)


def test_bfloat16(tiny_manager, small_model, tmp_path):
    model = small_model()
    engine = engine_of(tiny_manager(), model, precision="bfloat16")
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert engine.descriptors["drawn_pedestrians_tiny"][0].features.dtype == torch.float32


def test_unknown_precision(tiny_manager, small_model):
    with pytest.raises(ValueError, match="^precision is 'int4'; allowed: float32, bfloat16"):
        engine_of(tiny_manager(), small_model(), precision="int4")


def test_what_a_run_keeps(tiny_manager, small_model, tmp_path):
    model = small_model()
    engine = engine_of(tiny_manager(), model, keep_last=2)
    engine.run(save_dir=str(tmp_path), max_epoch=4, eval_freq=2, ranks=[1, 3, 500])
    kept = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert kept == ["model-best.pth.tar", "model.pth.tar-3", "model.pth.tar-4"]
    state = load_checkpoint(tmp_path / "model" / "model.pth.tar-4")
    assert state["epoch"] == 4
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state["state_dict"].items())
    scores = [value for _, value in engine.history["drawn_pedestrians_tiny mAP"]]
    assert load_checkpoint(tmp_path / "model" / "model-best.pth.tar")["best_score"] == pytest.approx(max(scores) / 100)
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_stock_torchreid_reads_our_checkpoint(tiny_manager, small_model, tmp_path):
    model = small_model()
    engine_of(tiny_manager(), model).run(save_dir=str(tmp_path), max_epoch=1)
    other = small_model()
    epoch = torchreid.utils.resume_from_checkpoint(str(tmp_path / "model" / "model.pth.tar-1"), other, sgd(other))
    assert epoch == 1
    assert torch.equal(other.last.weight, model.last.weight)


def test_a_new_run_in_a_used_folder_moves_the_old_checkpoints_aside(tiny_manager, small_model, tmp_path):
    engine_of(tiny_manager(), small_model()).run(save_dir=str(tmp_path), max_epoch=3)
    engine_of(tiny_manager(), small_model()).run(save_dir=str(tmp_path), max_epoch=1)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model-best.pth.tar", "model.pth.tar-1"]
    assert (tmp_path / "earlier-1" / "model" / "model.pth.tar-3").is_file()


@pytest.mark.parametrize("resume", ["auto", "path"])
def test_only_testing_a_run(tiny_manager, small_model, tmp_path, resume):
    model = small_model()
    engine_of(tiny_manager(), model).run(save_dir=str(tmp_path), max_epoch=1)
    fresh = small_model()
    file = "auto" if resume == "auto" else str(tmp_path / "model" / "model.pth.tar-1")
    engine_of(tiny_manager(), fresh).run(save_dir=str(tmp_path), test_only=True, resume=file)
    assert torch.equal(fresh.last.weight, model.last.weight)


def test_only_testing_what_is_not_there(tiny_manager, small_model, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no complete checkpoint to test"):
        engine_of(tiny_manager(), small_model()).run(save_dir=str(tmp_path), test_only=True, resume="auto")


def test_model_and_objective_must_fit(tiny_manager, small_model):
    with pytest.raises(
        ValueError, match="built with loss='triplet'; SoftmaxObjective needs one built with loss='softmax'"
    ):
        engine_of(tiny_manager(), small_model(loss="triplet"))


def test_cuhk03_protocol(tiny_manager, small_model, tmp_path):
    engine = engine_of(tiny_manager(), small_model())
    engine.run(save_dir=str(tmp_path), test_only=True)
    plain = engine.results["drawn_pedestrians_tiny"]
    engine.run(save_dir=str(tmp_path), test_only=True, use_metric_cuhk03=True)
    result = engine.results["drawn_pedestrians_tiny"]
    assert result.shots.shape == (6, 10)
    assert result.mAP == plain.mAP
    assert result.rank(1) >= plain.rank(1)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_descriptors_are_near_the_full_ones(tiny_manager, small_model, precision):
    engine = engine_of(tiny_manager(), small_model())
    engine.test(normalize_feature=True)
    full = engine.descriptors["drawn_pedestrians_tiny"][1].features
    engine.test(normalize_feature=True, precision=precision)
    half = engine.descriptors["drawn_pedestrians_tiny"][1].features
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, atol=0.02, rtol=0)
    torch.testing.assert_close(full.norm(dim=1), torch.ones(len(full)))


def test_descriptors_that_are_not_finite_are_named_at_once(tiny_manager, small_model):
    model = small_model()
    engine = engine_of(tiny_manager(), model)
    engine.extract_features = lambda images: torch.full((len(images), 4), torch.inf)
    with pytest.raises(ValueError, match=r"infinite descriptors for .*\.jpg, .*; eval.precision bfloat16"):
        engine.test(precision="float16")


def test_queries_without_match_stop_the_run_before_it_begins(tiny_manager):
    from torchreid_ptl.data.preflight import check_identities

    query, gallery = [("a", 1, 0, 0), ("b", 2, 0, 0)], [("c", 1, 1, 0), ("d", 2, 0, 0)]
    check_identities("some", query, gallery)
    with pytest.raises(ValueError, match=r"1 of 2 queries of 'some' .*identity 2 is seen .*cameras \[1\] only"):
        check_identities("some", query, gallery, "error")


def test_a_gradient_that_is_not_finite_stops_before_the_step(tiny_manager, small_model, tmp_path):
    class Steep(Objective):
        def forward(self, outputs, pids, reference=None):
            return {"loss_x": (outputs.logits[0] * 0).abs().sum().sqrt()}  # zero, with an infinite slope

    model = small_model()
    engine = engine_of(tiny_manager(), model, Steep())
    with pytest.raises(NonFiniteLossError, match="gradient nan"):
        engine.run(save_dir=str(tmp_path), max_epoch=1)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_spoilt_weights_are_not_saved(tiny_manager, small_model, tmp_path):
    model = small_model()
    engine = engine_of(tiny_manager(), model)
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    model.last.weight.data[0] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"after epoch 2: weights nan. The last good checkpoint is .*tar-1"):
        engine.save_model(1, 0.0, str(tmp_path))
    assert not (tmp_path / "model" / "model.pth.tar-2").exists()


class Poison(Objective):
    """Becomes NaN at one step."""

    def __init__(self, at):
        super().__init__()
        self.at, self.steps = at, 0

    def forward(self, outputs, pids, reference=None):
        self.steps += 1
        value = outputs.logits[0].mean()
        return {"loss_x": value * float("nan") if self.steps == self.at else value}


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tiny_manager, small_model, tmp_path):
    model = small_model()
    engine = engine_of(tiny_manager(), model, Poison(at=7))
    with pytest.raises(NonFiniteLossError, match=r"epoch 2, batch 3: .*model\.pth\.tar-1.*with load_weights"):
        engine.run(save_dir=str(tmp_path), max_epoch=3)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_before_the_first_checkpoint_there_is_none_to_name(tiny_manager, small_model, tmp_path):
    engine = engine_of(tiny_manager(), small_model(), Poison(at=1))
    with pytest.raises(NonFiniteLossError, match="No checkpoint has been written yet"):
        engine.run(save_dir=str(tmp_path), max_epoch=1)


def test_frozen_epochs_train_the_open_layers_alone(tiny_manager, small_model, tmp_path):
    model = small_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    engine_of(tiny_manager(), model).run(
        save_dir=str(tmp_path), max_epoch=1, fixbase_epoch=1, open_layers=["classifier"]
    )
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("classifier.") for name in moved)


def test_an_objective_prepares_each_epoch_and_may_change_its_loader(tiny_manager, small_model, tmp_path):
    class Preparing(SoftmaxObjective):
        seen = ()

        def begin_epoch(self, engine):
            self.seen += ((engine.epoch, engine.model.training),)
            engine.datamanager.train_loader = list(engine.datamanager.train_loader)[: engine.epoch + 1]

    objective = Preparing()
    engine = engine_of(tiny_manager(), small_model(), objective)
    batches = []
    engine.forward_backward = lambda data: batches.append(engine.epoch) or {"loss": 0.0}
    engine.run(save_dir=str(tmp_path), max_epoch=2)
    assert objective.seen == ((0, True), (1, True))
    assert batches == [0, 1]  # of the one batch that the first epoch left


def test_scheduler_per_batch(tiny_manager, small_model, tmp_path):
    model = small_model()
    optimizer = sgd(model, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    engine = engine_of(
        tiny_manager(), model, Poison(at=99), optimizer, scheduler=scheduler, step_scheduler_per_batch=True
    )
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**4)


def test_parameters_of_an_objective_are_in_the_checkpoint(tiny_manager, small_model, tmp_path):
    class Weighted(SoftmaxObjective):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(3.0))

        def forward(self, outputs, pids, reference=None):
            return {"loss_x": self.weight * super().forward(outputs, pids)["loss_x"]}

    model, objective = small_model(), Weighted()
    optimizer = torch.optim.SGD([*model.parameters(), *objective.parameters()], lr=0.01)
    engine = engine_of(tiny_manager(), model, objective, optimizer)
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    state = load_checkpoint(tmp_path / "model" / "model.pth.tar-1")
    assert torch.equal(state["objective"]["weight"], objective.weight.detach())
    assert objective.weight.item() != 3.0


def test_flip_is_the_mean_with_the_mirrored_image(tiny_manager, small_model):
    model = small_model()
    engine = engine_of(tiny_manager(), model)
    engine.test(flip=True)
    flipped = engine.descriptors["drawn_pedestrians_tiny"][0].features
    batch = next(iter(engine.test_loader["drawn_pedestrians_tiny"]["query"]))
    model.eval()
    with torch.no_grad():
        expected = (model(batch["img"]) + model(batch["img"].flip(3))) / 2
    torch.testing.assert_close(flipped, expected)


def test_reranking_is_the_hosts(tiny_manager, small_model, capsys):
    model = small_model()
    engine = engine_of(tiny_manager(), model)
    rank1 = engine.test(rerank=True)
    stock = torchreid.engine.ImageSoftmaxEngine(tiny_manager(), model, engine.optimizer, use_gpu=False)
    model.eval()
    assert stock.test(rerank=True, ranks=[1]) == pytest.approx(rank1)
    mean_ap = engine.results["drawn_pedestrians_tiny"].mAP
    assert f"mAP: {mean_ap:.1%}" in capsys.readouterr().out


def test_keep_last_must_keep_one(tiny_manager, small_model):
    with pytest.raises(ValueError, match="keep_last is 0"):
        engine_of(tiny_manager(), small_model(), keep_last=0)


@pytest.mark.parametrize("error", [OSError("a network drive is gone"), KeyboardInterrupt()])
def test_a_tested_epoch_is_written_once_and_not_lost_with_its_test(
    tiny_manager, small_model, tmp_path, monkeypatch, error
):
    def engine():
        model = small_model()
        optimizer = torchreid.optim.build_optimizer(model, optim="sgd", lr=0.01)
        return ImagePTLEngine(tiny_manager(), model, optimizer, SoftmaxObjective(), use_gpu=False)

    written = []
    keep = torchreid_ptl.engines.engine.keep
    monkeypatch.setattr(torchreid_ptl.engines.engine, "keep", lambda *given: written.append(given[2]) or keep(*given))
    engine().run(save_dir=str(tmp_path / "a"), max_epoch=2, eval_freq=1)
    assert written == [0, 1]

    def fail(*_, **__):
        raise error

    stopped = engine()
    monkeypatch.setattr(stopped, "_test_target", fail)
    with pytest.raises(type(error)):
        stopped.run(save_dir=str(tmp_path / "b"), max_epoch=1)
    assert written == [0, 1, 0]
    monkeypatch.setattr(ImagePTLEngine, "train", lambda *_, **__: pytest.fail("trained again"))
    again = engine()
    again.run(save_dir=str(tmp_path / "b"), max_epoch=1, resume="auto")
    assert again.results


def test_equal_descriptors_are_told(tiny_manager, small_model, capsys):
    engine = engine_of(tiny_manager(), small_model())
    engine.test()
    assert "equal" not in capsys.readouterr().out
    engine.extract_features = lambda images: torch.ones(len(images), 8)
    engine.test()
    assert "All 6 descriptors of query are equal" in capsys.readouterr().out
