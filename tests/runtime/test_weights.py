"""Loading weights into models."""

import pytest
import torch
import torchreid
from torch import nn

from torchreid_ptl.runtime.checkpoint import CheckpointError
from torchreid_ptl.runtime.weights import load_weights, unwrap


def osnet(classes=3):
    return torchreid.models.build_model("osnet_x0_25", classes, pretrained=False, use_gpu=False)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("form", ["file", "checkpoint", "mapping"])
def test_plain_checkpoint_fills_the_backbone(small_model, tmp_path, prefix, form):
    plain = osnet()
    state = {prefix + key: value for key, value in plain.state_dict().items()}
    source = state
    if form != "mapping":
        source = tmp_path / "weights.pth"
        torch.save({"state_dict": state, "epoch": 1} if form == "checkpoint" else state, source)
    model = small_model()
    report = load_weights(model, source)
    assert torch.equal(model.backbone.conv2[0].conv1.conv.weight, plain.conv2[0].conv1.conv.weight)
    assert "backbone.conv5.bn.running_var" in report.matched
    assert "image_cells.0.gates.weight" in report.missing
    assert "entries of the model loaded" in str(report)


def test_own_checkpoint_of_other_identities_leaves_the_classifier(small_model):
    model, other = small_model(num_classes=4), small_model(num_classes=9)
    before = model.classifier[-1].weight.clone()
    report = load_weights(model, other.state_dict())
    assert report.other_shape == ["classifier.6.weight", "classifier.6.bias"]
    assert torch.equal(model.classifier[-1].weight, before)
    assert torch.equal(model.last.weight, other.last.weight)


@pytest.mark.parametrize("name", ["resnet18", "osnet_x1_0"])
def test_another_model_is_an_error_and_changes_nothing(small_model, name):
    foreign = torchreid.models.build_model(name, 2, pretrained=False, use_gpu=False)
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"belongs to another model: .*fits?\..*It has entries such as"):
        load_weights(model, foreign.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_nothing_matched():
    with pytest.raises(CheckpointError, match="nothing in it fits"):
        load_weights(osnet(), {"something": torch.ones(2)})


@pytest.mark.parametrize("content", [{"state_dict": [1, 2]}, {1: torch.ones(2)}])
def test_what_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_weights(osnet(), tmp_path / "x.pth")


def test_a_child_called_module_is_no_wrapper():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    holder = Holder()
    assert unwrap(holder) is holder


def test_wrappers():
    inner = nn.Linear(2, 2)
    assert unwrap(inner) is inner
    assert unwrap(nn.DataParallel(inner)) is inner
    assert unwrap(torch.compile(nn.Sequential(inner), backend="eager"))[0] is inner
    report = load_weights(nn.DataParallel(inner), {"module.weight": torch.zeros(2, 2), "module.bias": torch.zeros(2)})
    assert report.missing == []
    assert inner.weight.abs().sum() == 0


class Small(nn.Module):
    """A network of the host's kind."""

    def __init__(self, classes=3, layers=1):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
        self.classifier = nn.Linear(4, classes)


def test_a_test_needs_all_of_the_model():
    model, other = Small(layers=3), Small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"4 entries of the model are not in it, layers.1.weight, .* 56\.5 % of"):
        load_weights(model, other.state_dict(), whole=True)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert "11 of 15 entries of the model loaded, 56.5 % of its values without" in str(
        load_weights(model, other.state_dict())
    )


def test_a_test_needs_no_classifier_and_no_counters():
    state = {key: value for key, value in Small(7).state_dict().items() if not key.endswith("num_batches_tracked")}
    report = load_weights(Small(3), state, whole=True)
    assert (report.unfilled, report.share, report.other_shape) == ([], 1.0, ["classifier.weight", "classifier.bias"])


WRAPPED = {
    "model": lambda state: {"model": state, "epoch": torch.tensor(3)},
    "net": lambda state: {"net": state, "acc": 0.5},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "nested": lambda state: {"state_dict": {"model": state}},
    "other name": lambda state: {"student": state, "optimizer": {"state": {0: {"x": torch.ones(1)}}}},
    "lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    "shared twice": lambda state: {f"module.model.backbone.{key}": value for key, value in state.items()},
    "with the mean one": lambda state: {"model": state, "ema": {key: value * 0 for key, value in state.items()}},
}


@pytest.mark.parametrize(
    ("form", "ptl"), [*((form, False) for form in WRAPPED), ("lightning", True), ("shared twice", True)]
)
def test_state_dicts_as_other_programs_write_them(small_model, tmp_path, form, ptl):
    source = small_model() if ptl else Small()
    torch.save(WRAPPED[form](source.state_dict()), tmp_path / "x.pth")
    model = small_model() if ptl else Small()
    assert load_weights(model, tmp_path / "x.pth", whole=True).missing == []
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_several_state_dicts(tmp_path):
    state = Small().state_dict()
    with pytest.raises(CheckpointError, match=r"several state dicts: 'teacher', 'student'\. Save the one"):
        load_weights(Small(), {"teacher": state, "student": state})


def test_a_network_inside_another_one_keeps_its_names():
    outer = nn.Sequential()
    outer.add_module("model", nn.Sequential(nn.Linear(2, 2)))
    assert load_weights(outer, outer.state_dict(), whole=True).missing == []
    assert load_weights(outer[0], outer.state_dict(), whole=True).missing == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_no_numbers(value, dtype):
    state = {key: each.to(dtype) if each.is_floating_point() else each for key, each in Small().state_dict().items()}
    state["conv.weight"].view(-1)[5] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in 1 entries, conv\.weight for example"):
        load_weights(Small(), state)


@pytest.mark.parametrize(
    "odd",
    [
        torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
        torch.eye(2).to_sparse(),
        torch.ones(2, 2, dtype=torch.complex64),
        torch.ones(2, 2, device="meta"),
    ],
    ids=["quantised", "sparse", "complex", "meta"],
)
def test_tensors_that_are_no_plain_numbers(odd):
    with pytest.raises(CheckpointError, match="quantised, sparse, complex or without values: weight"):
        load_weights(nn.Linear(2, 2), {"weight": odd, "bias": torch.zeros(2)})


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("model.", {"criterion.weight": torch.ones(3)}),
        ("backbone.", {"heads.weight": torch.ones(4, 5), "pixel_mean": torch.ones(3)}),
        ("student.encoder.", {"student.loss.centers": torch.ones(2), "teacher.count": torch.tensor(1)}),
    ],
)
def test_a_network_with_other_parts_beside_it_in_a_program_is_found(small_model, prefix, beside):
    torch.manual_seed(1)
    there, here = small_model(), small_model()
    state = {
        f"{prefix}{key}": value + 1 if value.is_floating_point() else value for key, value in there.state_dict().items()
    }
    report = load_weights(here, {**beside, **state}, whole=True)
    assert report.share == 1
    assert {key.rpartition(".")[2] for key in report.unknown} == {key.rpartition(".")[2] for key in beside}
    for key, value in there.state_dict().items():
        expected = value + 1 if value.is_floating_point() else value
        assert torch.equal(here.state_dict()[key], expected)
