"""Distillation: the teacher stays as it is, the student is plain, the rest is any training."""

import copy
import os
import subprocess
import sys

import pytest
import torch
import torchreid
from torch import nn

import torchreid_ptl
from torchreid_ptl.engines import (
    FrozenModel,
    ImagePTLEngine,
    ImageSTDEngine,
    MGNObjective,
    Preprocessing,
    SoftmaxObjective,
    projection_of,
)
from torchreid_ptl.engines.feature_objective import unreachable
from torchreid_ptl.runtime.checkpoint import CheckpointError, load_checkpoint
from torchreid_ptl.runtime.weights import load_weights

STYLE = Preprocessing(64, 32)


def sgd(model, *more):
    return torch.optim.SGD([*model.parameters(), *more], lr=0.01, momentum=0.9)


def build(name, loss="triplet", num_classes=4):
    return torchreid.models.build_model(name, num_classes, loss=loss, pretrained=False, use_gpu=False)


def engine_of(manager, student=None, teacher=None, **options):
    torch.manual_seed(3)
    teacher = teacher or build("osnet_x0_25_ptl", "softmax")
    torch.manual_seed(5)
    student = student or build("osnet_x0_25")
    return ImageSTDEngine(manager, student, sgd(student), teacher, use_gpu=False, **options)


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_teacher_is_bit_equal_afterwards_and_nowhere_in_the_checkpoint(tiny_manager, tmp_path):
    engine = engine_of(tiny_manager())
    network = engine.objective.teacher.network
    before, student = bits(network), bits(engine.model)
    engine.run(save_dir=str(tmp_path), max_epoch=2, eval_freq=1)
    assert equal(before, bits(network))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training
    assert not equal(student, bits(engine.model))
    state = load_checkpoint(tmp_path / "model" / "model.pth.tar-2")
    assert state["state_dict"].keys() == student.keys()
    assert state["objective"] == {}
    learning = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
    assert not learning & {id(p) for p in network.parameters()}
    assert [len(group["params"]) for group in engine.optimizer.param_groups] == [len(list(engine.model.parameters()))]


@pytest.mark.parametrize(
    ("shift", "options", "warned"),
    [(0.5, {}, True), (0.0, {}, False), (0.5, {"lambda_": 0.0}, False)],
)
def test_a_student_that_is_never_negative_is_told_what_it_cannot_reach(
    tiny_manager, tmp_path, capsys, shift, options, warned
):
    teacher = build("osnet_x0_25_ptl", "softmax").eval()
    teacher.register_forward_hook(lambda *given: given[2] - shift)
    engine = engine_of(tiny_manager(), teacher=teacher, **options)
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    out = capsys.readouterr().out
    assert out.count("WARNING: this student cannot imitate its teacher") == warned  # once, not in each of 4 batches
    if warned:
        assert "<backbone>_ptl with ptl.cells False" in out


def test_what_a_feature_that_is_never_negative_cannot_reach():
    own, wanted = torch.tensor([[0.0, 1.0]]), torch.tensor([[-2.0, 1.0], [-1.0, 3.0]])
    said = unreachable(own, wanted)
    assert "50% of the other network's are" in said
    assert "below 0.75, 43% of the mean absolute value" in said  # (2 + 1) / 4 of 7 / 4
    assert unreachable(own - 0.1, wanted) == unreachable(own, wanted.abs()) == ""


@pytest.mark.slow
def test_stock_torchreid_alone_loads_the_student(tiny_manager, tmp_path):
    engine = engine_of(tiny_manager())
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    code = (
        "import sys, torch, torchreid\n"
        "model = torchreid.models.build_model('osnet_x0_25', 4, pretrained=False, use_gpu=False)\n"
        "torchreid.utils.load_pretrained_weights(model, sys.argv[1])\n"
        "image = torch.linspace(-1, 1, 3 * 64 * 32).reshape(1, 3, 64, 32)\n"
        "torch.save(model.eval()(image), sys.argv[2])\n"
        "assert not [name for name in sys.modules if name.startswith('torchreid_ptl')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:torchreid.reid.utils", "-c", code]
        + [str(tmp_path / "model" / "model.pth.tar-1"), str(tmp_path / "out.pt")],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Successfully loaded" in done.stdout
    assert "discarded" not in done.stdout
    image = torch.linspace(-1, 1, 3 * 64 * 32).reshape(1, 3, 64, 32)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), engine.model.eval()(image).detach())


def test_lambda_0_is_the_plain_training_bit_by_bit(tiny_manager, tmp_path):
    torch.manual_seed(5)
    plain = build("osnet_x0_25", "softmax")
    torch.manual_seed(9)
    engine = ImagePTLEngine(tiny_manager(), plain, sgd(plain), SoftmaxObjective(), use_gpu=False)
    engine.run(save_dir=str(tmp_path / "plain"), max_epoch=1)
    distilled = engine_of(tiny_manager(), lambda_=0.0)
    torch.manual_seed(9)
    distilled.run(save_dir=str(tmp_path / "std"), max_epoch=1)
    assert equal(bits(plain), bits(distilled.model))
    assert [f for f in distilled.history if f.startswith("loss")] == ["loss"]


def test_what_a_distillation_needs_beforehand_draws_nothing(tiny_manager):
    manager = tiny_manager(transforms=[])
    teacher, student = build("osnet_x0_25_ptl", "softmax").train(), build("osnet_x0_25")
    state = torch.get_rng_state()
    frozen = FrozenModel(teacher, STYLE)
    engine = ImageSTDEngine(manager, student, sgd(student), frozen, cache=True, use_gpu=False)
    projection_of(student, frozen, STYLE)
    assert engine.objective.table is not None
    assert torch.equal(state, torch.get_rng_state())


def test_a_teacher_told_of_other_images_is_refused(tiny_manager):
    frozen = FrozenModel(build("osnet_x0_25_ptl", "softmax"), Preprocessing(128, 64))
    student = build("osnet_x0_25")
    with pytest.raises(ValueError, match=r"Preprocessing\(height=128.*come as Preprocessing\(height=64"):
        ImageSTDEngine(tiny_manager(), student, sgd(student), frozen, use_gpu=False)


def test_trying_an_mgn_leaves_it_as_it_was():
    student = build("mgn")
    assert torchreid_ptl.engines.feature_objective.descriptor_dim(student, STYLE) == 2048
    assert student.all_parts is False


def test_lambda_1_never_looks_at_labels(tiny_manager):
    manager = tiny_manager()
    engines = [engine_of(manager, lambda_=1.0) for _ in range(2)]
    for batch in list(manager.train_loader)[:2]:
        engines[0].forward_backward(batch)
        engines[1].forward_backward({**batch, "pid": torch.zeros_like(batch["pid"])})
    assert equal(bits(engines[0].model), bits(engines[1].model))


def test_the_terms_of_a_step_by_hand(tiny_manager):
    engine = engine_of(tiny_manager(), lambda_=0.3)
    batch = next(iter(engine.train_loader))
    student, teacher = copy.deepcopy(engine.model).train(), engine.objective.teacher.network
    logits, feature = student(batch["img"])
    plain = nn.CrossEntropyLoss(label_smoothing=0.1)(logits, batch["pid"])
    distance = (feature - teacher(batch["img"])).abs().mean()
    figures = engine.forward_backward(batch)
    assert figures["loss_x"] == pytest.approx(0.7 * plain.item(), rel=1e-5)
    assert figures["loss_std"] == pytest.approx(0.3 * distance.item(), rel=1e-5)
    assert figures["loss"] == pytest.approx(figures["loss_x"] + figures["loss_std"], rel=1e-6)


def test_distillation_brings_the_student_to_its_teacher(tiny_manager, tmp_path):
    teacher = build("osnet_x0_25_ptl", "softmax")
    student = build("osnet_x0_25")
    manager = tiny_manager(transforms=[])
    engine = ImageSTDEngine(
        manager, student, torch.optim.Adam(student.parameters(), 0.01), teacher, lambda_=1.0, use_gpu=False
    )
    engine.run(save_dir=str(tmp_path), max_epoch=10)
    distances = [value for _, value in engine.history["loss"]]
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_teachers_features_computed_once(tiny_manager, tmp_path, precision):
    manager = tiny_manager(transforms=[])
    engine = engine_of(manager, cache=True, precision=precision)
    asked = []
    engine.objective.teacher.network.register_forward_hook(lambda *_: asked.append(1))
    batch = next(iter(manager.train_loader))
    rows = engine.objective.reference(batch["img"], batch)
    assert asked == []
    engine.objective.table = None
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        fresh = engine.objective.reference(batch["img"], batch)
    torch.testing.assert_close(rows, fresh.float(), rtol=2e-2 if precision == "bfloat16" else 1e-4, atol=2e-2)


def test_features_cannot_be_kept_with_augmentation(tiny_manager):
    with pytest.raises(ValueError, match="only without augmentation; got RandomHorizontalFlip"):
        engine_of(tiny_manager(transforms=["random_flip"]), cache=True)


def test_other_dimensions_are_refused_or_projected(tiny_manager, tmp_path):
    manager = tiny_manager()
    student = build("resnet18")  # 512 dimensions like OSNet
    assert engine_of(manager, student).objective.projection is None
    teacher = build("shufflenet_v2_x0_5_ptl", "softmax")
    with pytest.raises(ValueError, match=r"512 dimensions and the teacher's 1024.*with projection linear"):
        engine_of(manager, teacher=teacher)
    frozen = FrozenModel(teacher, STYLE)
    student = build("osnet_x0_25")
    projection = projection_of(student, frozen, STYLE)
    with pytest.raises(ValueError, match=r"optimiser lacks parameters of STDObjective: projection\.weight"):
        ImageSTDEngine(manager, student, sgd(student), frozen, projection=projection, use_gpu=False)
    before = projection.weight.clone()
    optimizer = sgd(student, *projection.parameters())
    engine = ImageSTDEngine(manager, student, optimizer, frozen, projection=projection, use_gpu=False)
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    assert not torch.equal(before, projection.weight)
    state = load_checkpoint(tmp_path / "model" / "model.pth.tar-1")
    assert set(state["objective"]) == {"projection.weight", "projection.bias"}
    assert not any("projection" in name for name in state["state_dict"])


@pytest.mark.parametrize("teacher", ["mgn", "mgn_ptl"])
def test_mgn_is_compared_by_its_eight_parts(tiny_manager, teacher):
    manager = tiny_manager(train_sampler="RandomIdentitySampler", num_instances=2)
    student, teacher = build("mgn"), build(teacher, "softmax")
    engine = ImageSTDEngine(manager, student, sgd(student), teacher, lambda_=0.5, base=MGNObjective(), use_gpu=False)
    batch = next(iter(manager.train_loader))
    logits, parts = copy.deepcopy(student).train()(batch["img"])
    assert [len(logits), len(parts)] == [8, 8]
    expected = MGNObjective()(torchreid_ptl.engines.Outputs(tuple(logits), tuple(parts[:3])), batch["pid"])
    target = engine.objective.teacher.network(batch["img"])
    assert target.shape[1] == 2048
    distance = sum((part - target[:, 256 * i : 256 * (i + 1)]).abs().mean() for i, part in enumerate(parts)) / 8
    figures = engine.forward_backward(batch)
    assert figures["loss_t"] == pytest.approx(0.5 * expected["loss_t"].item(), rel=1e-4)
    assert figures["loss_x"] == pytest.approx(0.5 * expected["loss_x"].item(), rel=1e-4)
    assert figures["loss_std"] == pytest.approx(0.5 * distance.item(), rel=1e-4)


def test_a_student_without_features(tiny_manager):
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(3, 4)

        def forward(self, x):
            return self.classifier(x.mean((2, 3)))

    with pytest.raises(ValueError, match="Silent gives no features in training, which comparing"):
        engine_of(tiny_manager(), Silent())
    with pytest.raises(ValueError, match="gives no features in training"):
        engine_of(tiny_manager(), build("osnet_x0_25", "softmax"))


def test_trying_a_student_leaves_no_trace():
    student = build("osnet_x0_25_ptl").train()
    student(torch.rand(2, 3, 64, 32))
    before, state = bits(student), torch.get_rng_state()
    latent = [m.latent.clone() for m in student.modules() if isinstance(m, torchreid_ptl.BConvCell)]
    assert torchreid_ptl.engines.feature_objective.descriptor_dim(student, STYLE) == 512
    assert equal(before, bits(student))
    assert torch.equal(state, torch.get_rng_state())
    after = [m.latent for m in student.modules() if isinstance(m, torchreid_ptl.BConvCell)]
    assert all(torch.equal(a, b) for a, b in zip(latent, after, strict=True))


def test_a_resumed_run_needs_the_same_teacher(tiny_manager, tmp_path):
    engine = engine_of(tiny_manager())
    engine.run(save_dir=str(tmp_path / "a"), max_epoch=1)
    checkpoint = str(tmp_path / "a" / "model" / "model.pth.tar-1")
    engine_of(tiny_manager()).run(save_dir=str(tmp_path / "b"), max_epoch=2, resume=checkpoint)
    torch.manual_seed(11)
    other = build("osnet_x0_25_ptl", "softmax")
    with pytest.raises(
        CheckpointError, match=r"another frozen model \(teacher, .*\): its fingerprint was '\w{16}' and is"
    ):
        engine_of(tiny_manager(), teacher=other).run(save_dir=str(tmp_path / "c"), max_epoch=2, resume=checkpoint)
    plain = build("osnet_x0_25", "softmax")
    for config, message in (
        ({}, "and is 'none'"),
        (None, r"objective\.class was 'STDObjective' and is 'SoftmaxObjective'"),
    ):
        without = ImagePTLEngine(tiny_manager(), plain, sgd(plain), SoftmaxObjective(), use_gpu=False, config=config)
        with pytest.raises(CheckpointError, match=message):
            without.run(save_dir=str(tmp_path / "d"), max_epoch=2, resume=checkpoint)


def test_a_resumed_distillation_ends_where_the_uninterrupted_one_does(tiny_manager, tmp_path):
    whole = engine_of(tiny_manager())
    torch.manual_seed(9)
    whole.run(save_dir=str(tmp_path / "whole"), max_epoch=2)
    first = engine_of(tiny_manager())
    torch.manual_seed(9)
    first.run(save_dir=str(tmp_path / "cut"), max_epoch=1)
    second = engine_of(tiny_manager())
    second.run(save_dir=str(tmp_path / "cut"), max_epoch=2, resume="auto")
    assert equal(bits(whole.model), bits(second.model))


def test_the_saved_student_loads_into_its_ptl_sibling(tiny_manager, tmp_path):
    engine = engine_of(tiny_manager())
    engine.run(save_dir=str(tmp_path), max_epoch=1)
    report = load_weights(build("osnet_x0_25_ptl"), tmp_path / "model" / "model.pth.tar-1")
    assert len(report.matched) > 100
