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
